//go:build race

package caisson

const raceEnabled = true
