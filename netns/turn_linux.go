package netns

import (
	"context"
	"sync"
	"time"
)

// A turn is a goroutine's to hold the lock of a state directory. Those of one program wait for each other here, and go on at once: the lock
// itself, which other programs may hold, is asked for again and again.
type turn struct {
	dir   string
	users int           // who has it or waits
	free  chan struct{} // holds one value while nobody has it
	since time.Time     // it has gone from one to the next; of whoever has it
}

// Other programs have their chance so often, and for so long: they ask every millisecond.
const (
	turnsFor = 50 * time.Millisecond
	turnsOff = 3 * time.Millisecond
)

var turns struct {
	mu  sync.Mutex
	all map[string]*turn
}

// takeTurn waits for it until ctx ends.
func takeTurn(ctx context.Context, dir string) (*turn, error) {
	turns.mu.Lock()
	t := turns.all[dir]
	if t == nil {
		t = &turn{dir: dir, free: make(chan struct{}, 1), since: time.Now()}
		t.free <- struct{}{}
		if turns.all == nil {
			turns.all = map[string]*turn{}
		}
		turns.all[dir] = t
	}
	t.users++
	turns.mu.Unlock()
	select {
	case <-t.free:
		return t, nil
	default:
	}
	select {
	case <-t.free:
		return t, nil
	case <-ctx.Done():
		t.leave()
		return nil, ctx.Err()
	}
}

// end gives it to the next. The lock has been given back.
func (t *turn) end() {
	if time.Since(t.since) > turnsFor && t.awaited() {
		time.Sleep(turnsOff)
		t.since = time.Now()
	}
	t.free <- struct{}{}
	t.leave()
}

func (t *turn) awaited() bool {
	turns.mu.Lock()
	defer turns.mu.Unlock()
	return t.users > 1
}

// leave forgets a directory that nobody is interested in.
func (t *turn) leave() {
	turns.mu.Lock()
	defer turns.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(turns.all, t.dir)
	}
}
