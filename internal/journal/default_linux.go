package journal

import "sync"

var shared struct {
	mu sync.Mutex
	j  *Journal
}

// Default returns the journal of this program in [Dir], made at the first call. It stays open until the program ends: its
// lock is what shows others that the program lives. A failed call may be repeated.
func Default() (*Journal, error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.j != nil {
		return shared.j, nil
	}
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	j, err := Open(dir)
	if err != nil {
		return nil, err
	}
	shared.j = j
	return j, nil
}
