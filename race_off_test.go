//go:build !race

package caisson

const raceEnabled = false
