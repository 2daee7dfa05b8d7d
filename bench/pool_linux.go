package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caisson-go/caisson"
)

const (
	poolName = "caisson (pool)"
	fillName = "caisson (filling)"
)

// poolEngine is a command in a container that was made ready before. The one that takes its place is made after the time has been
// taken, and before the next sample of any engine.
type poolEngine struct {
	w     *workspace
	pools map[bool]*caisson.Pool // by cgroup
	fill  map[bool][]float64     // microseconds of making one ready
}

func (w *workspace) poolEngine() *poolEngine {
	e := &poolEngine{w, map[bool]*caisson.Pool{}, map[bool][]float64{}}
	w.undo = append(w.undo, func() error {
		var errs []error
		for _, p := range e.pools {
			errs = append(errs, p.Close())
		}
		return errors.Join(errs...)
	})
	return e
}

func (e *poolEngine) engine() *engine {
	return &engine{name: poolName, about: "Run of a Pool that is full, in this process; what it made beforehand is not in its time", can: always,
		run: func(payload string, cgroup bool) (float64, error) {
			ctx := context.Background()
			p, err := e.pool(ctx, cgroup)
			if err != nil {
				return 0, err
			}
			began := time.Now()
			r, err := p.Run(ctx, caisson.WithCommand(payload))
			took := time.Since(began)
			if err == nil && !r.Success() {
				err = fmt.Errorf("%s: %v", payload, r)
			}
			return microseconds(took), errors.Join(err, e.refill(ctx, cgroup))
		},
		output: func() (string, error) {
			p, err := e.pool(context.Background(), true)
			if err != nil {
				return "", err
			}
			var out strings.Builder
			_, err = p.Run(context.Background(), caisson.WithCommand(payloadProbe), caisson.WithStdout(&out))
			return out.String(), err
		},
	}
}

func (e *poolEngine) pool(ctx context.Context, cgroup bool) (*caisson.Pool, error) {
	p := e.pools[cgroup]
	if p == nil {
		var err error
		if p, err = caisson.NewPool(caisson.PoolConfig{Size: 1}, e.w.options(payloadT0, cgroup)...); err != nil {
			return nil, err
		}
		e.pools[cgroup] = p
	}
	return p, p.Ready(ctx)
}

// refill waits for the next container and notes what it took.
func (e *poolEngine) refill(ctx context.Context, cgroup bool) error {
	p := e.pools[cgroup]
	err := p.Ready(ctx)
	e.fill[cgroup] = append(e.fill[cgroup], microseconds(p.Stats().LastFill))
	return err
}

// filling prints what a full pool cost.
func (e *poolEngine) filling() string {
	var b strings.Builder
	for _, cgroup := range []bool{true, false} {
		if s := summarize(e.fill[cgroup]); s.N > 0 {
			fmt.Fprintf(&b, "%s, %s: %.0f / %.0f / %.0f µs for one container (median / p90 / least), made before and not in the times above\n", fillName, word(cgroup), s.Median, s.P90, s.Min)
		}
	}
	return b.String()
}

// pools compares a start out of a full pool with one from nothing and with the floors.
func pools(w *workspace) error {
	pool := w.poolEngine()
	engines := []*engine{w.inProcess(), pool.engine(), w.floorEngine("A"), w.floorEngine("B")}
	tight, gaps := columns()[:4], columns()[4:]
	newSampler().interleave(3, engines, tight)
	pool.fill = map[bool][]float64{}
	s := newSampler()
	s.interleave(*rounds, engines, tight)
	s.interleave(*gapRounds, engines, gaps)
	r := s.report("pool", engines, columns())
	var text strings.Builder
	r.markdown(&text)
	text.WriteString("\n" + pool.filling())
	fmt.Print(text.String())
	return w.keep("pool", text.String(), r)
}
