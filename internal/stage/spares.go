//go:build linux

package stage

import "sync"

var spares struct {
	mu   sync.Mutex
	drop []func()
}

// AlsoSpare has [NoSpares] call drop, which lets go of something that waits for a next start.
func AlsoSpare(drop func()) {
	spares.mu.Lock()
	defer spares.mu.Unlock()
	spares.drop = append(spares.drop, drop)
}

// NoSpares lets go of all that waits for a next start, after it has been made: for who counts what this program holds.
func NoSpares() {
	NoSpareNetwork()
	spares.mu.Lock()
	drop := spares.drop
	spares.mu.Unlock()
	for _, f := range drop {
		f()
	}
}
