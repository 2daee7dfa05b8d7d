package caisson

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestLazyTimeout(t *testing.T) {
	c := &lazyTimeout{after: time.Millisecond}
	defer c.end()
	time.Sleep(5 * time.Millisecond)
	if c.Err() != nil || context.Cause(c) != nil {
		t.Error("it has ended before anybody has asked for its end")
	}
	child, cancel := context.WithCancel(c)
	defer cancel()
	<-child.Done()
	for _, ctx := range []context.Context{c, child} {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Errorf("%v, %v", ctx.Err(), context.Cause(ctx))
		}
	}
	if _, ok := c.Deadline(); !ok {
		t.Error("no deadline")
	}
	new(lazyTimeout).end()
}
