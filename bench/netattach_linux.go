package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/caisson-go/caisson/netns"
)

// Names of rows that others look at.
const (
	rowFirst4   = "attach with two published ports until the first connection by one, IPv4"
	rowFirst6   = "the same until one by IPv4 and then one by IPv6"
	rowAttach   = "attach with two published ports"
	rowDetach   = "detach it"
	rowPlain    = "attach without a port"
	rowPlainOff = "detach that"
	rowPublish  = "publish two ports: the difference"
	rowLast     = "the last one of a full network: attach until the first connections by IPv4 and IPv6"
	rowFirstOf  = "the first of a network, for which bridge and rules are made: attach until the first connections by IPv4 and IPv6"
	rowLastOf   = "the last one of a full network ÷ the first"
)

// sampleAttach measures one attachment.
func sampleAttach(ctx context.Context, e *netEngine, publish bool, f *figures, first4, first6, attach, detach string) error {
	before, done := accepting(ctx)
	defer done()
	p, took, err := e.attach(ctx, publish, before)
	if err != nil {
		return err
	}
	total, reached := took, [2]time.Duration{}
	for i, a := range p.host {
		if !publish || len(p.own) <= i {
			continue
		}
		began := time.Now()
		if err := answers(ctx, e.host, netip.AddrPortFrom(a, p.web)); err != nil {
			return errors.Join(err, p.detach())
		}
		total += time.Since(began)
		reached[i] = total
	}
	began := time.Now()
	if err := p.detach(); err != nil {
		return err
	}
	off := time.Since(began)
	add := func(what string, d time.Duration) {
		if what != "" && d > 0 {
			f.row(what, "µs", false).add(e.name, microseconds(d))
		}
	}
	add(first4, reached[0])
	add(first6, reached[1])
	add(attach, took)
	add(detach, off)
	return nil
}

// attachments measures the first of a network, in turns, and then the second: what makes no bridge.
func attachments(ctx context.Context, engines []*netEngine, f *figures) error {
	for i := range max(2, *rounds/4) + 1 {
		into := f
		if i == 0 {
			into = newFigures() // warm
		}
		for _, e := range engines {
			if e.pooled {
				continue
			}
			if err := sampleAttach(ctx, e, true, into, "", rowFirstOf, "", "detach that, the last of its network"); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	for _, e := range engines {
		if e.pooled {
			continue
		}
		keep, _, err := e.attach(ctx, false, func(*netns.Namespace) error { return nil })
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		defer func() { _ = keep.detach() }()
	}
	const warm = 2
	for i := range *rounds + warm {
		into := f
		if i < warm {
			into = newFigures()
		}
		for _, e := range engines {
			awaitCalm(*quiet)
			err := sampleAttach(ctx, e, true, into, rowFirst4, rowFirst6, rowAttach, rowDetach)
			if err == nil && !e.pooled { // what waits in a pool has its ports
				err = sampleAttach(ctx, e, false, into, "", "", rowPlain, rowPlainOff)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	for _, e := range engines {
		with, ok := f.figure(rowAttach, e.name)
		without, ok2 := f.figure(rowPlain, e.name)
		if ok && ok2 {
			f.row(rowPublish, "µs", false).add(e.name, with.Median-without.Median)
		}
	}
	return nil
}

// manyAttached fills the networks and measures who comes last.
func manyAttached(ctx context.Context, engines []*netEngine, f *figures) error {
	if *netMany == 0 {
		return nil
	}
	var full []*netEngine
	for _, e := range engines {
		if e.pooled {
			continue
		}
		undo, err := e.fill(ctx, *netMany)
		defer undo()
		if err != nil {
			f.row(rowLast, "µs", false).fault(e.name, err)
			continue
		}
		full = append(full, e)
	}
	for range *rounds {
		for _, e := range full {
			awaitCalm(*quiet)
			if err := sampleAttach(ctx, e, true, f, "", rowLast, "the last one of a full network: attach", "the last one of a full network: detach"); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	for _, e := range full {
		f.row(rowLastOf, "", false).add(e.name, f.ratio(rowLast, e.name, rowFirst6, e.name))
	}
	return nil
}

// fill attaches endpoints, which go with the host's namespace.
func (e *netEngine) fill(ctx context.Context, n int) (undo func(), err error) {
	var all []*netns.Namespace
	undo = func() {
		for _, ns := range all {
			_ = ns.Close()
		}
	}
	fmt.Fprintf(os.Stderr, "%s: filling a network with %d endpoints\n", e.name, n)
	began := time.Now()
	for range n {
		ns, err := netns.New()
		if err != nil {
			return undo, err
		}
		all = append(all, ns)
		e.made++
		if _, err := e.lan.attach(ctx, ns, e.made, false); err != nil {
			return undo, fmt.Errorf("number %d: %w", len(all), err)
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %.1f ms each\n", e.name, time.Since(began).Seconds()*1000/float64(n))
	return undo, nil
}

// endpointMemory is what an endpoint of a container costs the host program: a published port, and the server of names.
func endpointMemory(ctx context.Context, engines []*netEngine, f *figures) error {
	const n = 100
	own := engines[0]
	hold := func(k int) (undo []func() error, err error) {
		for i := range k {
			ns, err := netns.New()
			if err != nil {
				return undo, err
			}
			undo = append(undo, ns.Close)
			wish := &netns.Networks{Endpoints: []netns.Endpoint{{Network: own.lan.(*ownNet).lan, Ports: []netns.Port{{Container: 80}}}}}
			c, err := wish.Prepare(ctx, netns.Request{ID: fmt.Sprint("m", i), Attended: true})
			if err != nil {
				return undo, err
			}
			undo = append(undo, func() error { return c.Detach(ctx) })
			if err := c.Attach(ctx, netns.Target{Netns: ns.File()}); err != nil {
				return undo, err
			}
		}
		return undo, nil
	}
	release := func(undo []func() error) (err error) {
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		return err
	}
	undo, err := hold(2) // what is made once
	if err = errors.Join(err, release(undo)); err != nil {
		return err
	}
	before := use()
	undo, err = hold(n)
	after := use()
	runtime.KeepAlive(undo)
	if err = errors.Join(err, release(undo)); err != nil {
		return err
	}
	per := func(what, unit string, a, b int) {
		f.row("an endpoint with a published port and names costs the program: "+what, unit, false).add(own.name, float64(b-a)/n)
	}
	per("heap", "bytes", before.heap, after.heap)
	per("goroutines", "", before.goroutines, after.goroutines)
	per("threads", "", before.threads, after.threads)
	per("descriptors (that of its namespace included)", "", before.descriptors, after.descriptors)
	return nil
}

// netGoals are what is promised.
func netGoals(f *figures) (out []goal) {
	add := func(what string, is float64, should string, kept bool) {
		if !math.IsNaN(is) {
			out = append(out, goal{what, is, should, kept})
		}
	}
	ms := func(what, engine string) float64 {
		x, ok := f.figure(what, engine)
		if !ok {
			return math.NaN()
		}
		return x.Median / 1000
	}
	one, pool, last := ms(rowFirst6, "caisson"), ms(rowFirst6, "caisson (pool)"), f.ratio(rowLast, "caisson", rowFirst6, "caisson")
	add("attach until the first connections by IPv4 and IPv6, ms", one, "< 3", one < 3)
	add("the same from a pool, ms", pool, "< 0.5", pool < 0.5)
	add("the last one of a full network ÷ the first", last, "≤ 1.5", last <= 1.5)
	if x, ok := f.figure(rowNamesCPU, "caisson"); ok {
		add("answers to queries for names, a second of one core (client included)", x.Median, "≥ 30000", x.Median >= 30000)
	}
	for _, what := range []string{rowPublishedRate, rowPublishedRequests} {
		direct := rowDirect[what]
		r := f.paired(what, "caisson", direct, "caisson")
		add(what+" ÷ "+direct, r, "≥ 0.95", r >= 0.95)
	}
	for _, what := range carriedRows {
		for _, peer := range []string{"cni", "netavark", "docker"} {
			r := f.paired(what, "caisson", what, peer)
			add(what+" ÷ "+peer+"'s", r, "≥ 1", r >= 0.97) // what two runs of the same differ by
		}
	}
	return out
}
