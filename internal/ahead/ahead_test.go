package ahead

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

var errClosed = errors.New("closed")

// Everything that was made is taken once or dropped, whoever waits, gives up or closes meanwhile.
func TestNothingIsLost(t *testing.T) {
	var next, dropped, failing atomic.Int64
	errMake := errors.New("cannot")
	p := New(Config[int64]{
		Size: 3, Closed: errClosed,
		Make: func(context.Context) (int64, error) {
			if n := next.Add(1); n%5 != 0 {
				return n, nil
			}
			failing.Add(1)
			return 0, errMake
		},
		Drop: func(int64) error { dropped.Add(1); return nil },
	})
	var taken sync.Map
	var count atomic.Int64
	var wg sync.WaitGroup
	take := func(n int64) {
		if _, twice := taken.LoadOrStore(n, true); twice {
			t.Error("taken twice:", n)
		}
		count.Add(1)
	}
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+j)%3 == 0 {
					go cancel()
				}
				switch n, err := p.Next(ctx); {
				case err == nil:
					take(n)
				case !errors.Is(err, context.Canceled) && !errors.Is(err, errMake):
					t.Error(err)
				}
				if n, ok := p.Try(); ok {
					take(n)
				}
				p.Poke()
				cancel()
			}
		})
	}
	wg.Wait()
	last := make(chan error, 1)
	go func() {
		for {
			n, err := p.Next(context.Background())
			if errors.Is(err, errClosed) {
				last <- nil
				return
			}
			if err == nil {
				take(n)
			}
		}
	}()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-last; err != nil {
		t.Error(err)
	}
	if _, ok := p.Try(); ok {
		t.Error("a closed pool has one")
	}
	s := p.Stats()
	if made := int64(s.Made); made != count.Load()+dropped.Load() || int64(s.Failed) != failing.Load() || s.Ready != 0 {
		t.Errorf("%+v: %d taken, %d dropped", s, count.Load(), dropped.Load())
	}
}

// What cannot be dropped is told by Close, as often as it is called.
func TestCloseTells(t *testing.T) {
	stuck := errors.New("stuck")
	made := make(chan bool, 10)
	p := New(Config[int]{Size: 2, Closed: errClosed, Drop: func(int) error { return stuck },
		Make: func(context.Context) (int, error) { made <- true; return 1, nil }})
	<-made
	<-made
	for range 2 {
		if err := p.Close(); !errors.Is(err, stuck) {
			t.Error(err)
		}
	}
}
