package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/caisson-go/caisson/internal/logs"
)

// ErrLogCorrupt: a line of a log is not an entry.
var ErrLogCorrupt = logs.ErrCorrupt

// Logs yields what [WithLog] has written, also before this start and by other programs, the oldest entry first. It works in
// any state, and for a container found by [Load]. A line that is no entry is yielded as an error that matches [ErrLogCorrupt],
// and the next ones follow; any other error is the last.
//
// With Follow the sequence goes on, over rotations, until the container has ended for good and all was read, or until ctx ends,
// whose error is then the last. Who follows holds nothing up: who reads so slowly that files are removed meanwhile misses what
// was in them.
func (c *Container) Logs(ctx context.Context, o LogOptions) iter.Seq2[LogEntry, error] {
	return func(yield func(LogEntry, error) bool) {
		cfg, ended, err := c.logged(&o)
		if err != nil {
			yield(LogEntry{}, c.fail("logs", err))
			return
		}
		lo := logs.Options{Follow: o.Follow, Tail: o.Tail, Since: o.Since, Until: o.Until}
		for _, s := range o.Streams {
			lo.Streams = append(lo.Streams, logs.Stream(s))
		}
		for e, err := range logs.Read(ctx, cfg.Path, lo, ended) {
			if err != nil && ctx.Err() == nil {
				err = c.fail("logs", err)
			}
			if !yield(LogEntry{e.Time, LogStream(e.Stream), e.Text, e.Partial}, err) {
				return
			}
		}
	}
}

// logged returns where the log is, and what is closed when nothing more will be written to it.
func (c *Container) logged(o *LogOptions) (*LogConfig, <-chan struct{}, error) {
	if c.spec.log == nil {
		return nil, nil, fmt.Errorf("%w: the container has no log; see WithLog", ErrState)
	}
	if o.Tail < 0 {
		return nil, nil, fmt.Errorf("%w: the last %d entries", ErrInvalid, o.Tail)
	}
	for _, s := range o.Streams {
		if s != LogStdout && s != LogStderr {
			return nil, nil, fmt.Errorf("%w: %v", ErrInvalid, s)
		}
	}
	if !o.Follow {
		return c.spec.log, nil, nil
	}
	p, v := c.Process(), c.revived()
	switch {
	case p == nil:
		return nil, nil, fmt.Errorf("%w: the container was never started: there is nothing to follow", ErrState)
	case v != nil:
		return c.spec.log, v.done, nil
	}
	return c.spec.log, p.done, nil
}

// outputs are who gets a copy of what the command puts out besides the writers that were given by options.
type outputs struct {
	log *logs.Writer
	hub *attachHub
}

// take hands on what a stream put out. It keeps nothing of p.
func (o *outputs) take(s logs.Stream, p []byte) {
	if o.log != nil {
		o.log.Write(s, p)
	}
	if o.hub != nil {
		o.hub.take(s, p)
	}
}

// copied reports whether all output passes through this program.
func (s *spec) copied() bool { return s.log != nil || s.attachable }

// tee gives output to those who get a copy, and to the writer that was given, if any. An error of the latter ends only that.
type tee struct {
	outs   *outputs
	stream logs.Stream
	w      io.Writer
	err    error
}

func (t *tee) Write(p []byte) (int, error) {
	t.outs.take(t.stream, p)
	if t.w != nil && t.err == nil {
		n, err := t.w.Write(p)
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		t.err = err
	}
	return len(p), nil
}

// copyAll copies a stream to all that get it. end says what of an error is the end of the stream.
func (s *streams) copyAll(from logs.Stream, w io.Writer, copyOut func(io.Writer) error) error {
	if s.outs == nil {
		if w == nil {
			w = io.Discard
		}
		return copyOut(w)
	}
	t := &tee{outs: s.outs, stream: from, w: w}
	err := copyOut(t)
	return errors.Join(err, t.err)
}

// oneAtATime is a writer that is given to two streams.
type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *oneAtATime) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}
