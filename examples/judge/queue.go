package main

import (
	"context"
	"errors"
	"sync/atomic"
)

// queue lets a few programs run at a time, a few more wait, and refuses the rest.
type queue struct {
	slots   chan struct{}
	taken   atomic.Int64 // places of those that run or wait
	running atomic.Int64
	most    int64
}

var errBusy = errors.New("too many programs wait already; try again later")

func newQueue(parallel, waiting int) *queue {
	return &queue{slots: make(chan struct{}, parallel), most: int64(parallel + waiting)}
}

// reserve takes n places at once, or none.
func (q *queue) reserve(n int) error {
	if q.taken.Add(int64(n)) > q.most {
		q.taken.Add(int64(-n))
		return errBusy
	}
	return nil
}

// run calls f when its turn has come, and gives one place back. The error is that of ctx.
func (q *queue) run(ctx context.Context, f func()) error {
	defer q.taken.Add(-1)
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.slots }()
	q.running.Add(1)
	defer q.running.Add(-1)
	f()
	return nil
}

// waiting is how many wait.
func (q *queue) waiting() int64 { return max(q.taken.Load()-q.running.Load(), 0) }
