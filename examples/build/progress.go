package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// progress tells what happens, a line at a time: steps of several stages run at once, so that each line says of which it is.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	steps int
	hits  int
	quiet bool
}

func (p *progress) line(format string, args ...any) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// step is one line of a Dockerfile that is being dealt with.
type step struct {
	p     *progress
	n     int
	start time.Time
	hit   bool
}

func (p *progress) step(label string) *step {
	p.mu.Lock()
	p.steps++
	s := &step{p: p, n: p.steps, start: time.Now()}
	p.mu.Unlock()
	p.line("#%d %s", s.n, label)
	return s
}

func (s *step) cached() {
	s.p.mu.Lock()
	s.p.hits++
	s.p.mu.Unlock()
	s.hit = true
}

func (s *step) note(format string, args ...any) {
	s.p.line("#%d %s", s.n, fmt.Sprintf(format, args...))
}

func (s *step) done(err error) {
	var elsewhere *fault
	switch {
	case errors.As(err, &elsewhere):
		s.p.line("#%d CANCELED: what it needs could not be built", s.n)
		return
	case errors.Is(err, context.Canceled):
		s.p.line("#%d CANCELED", s.n)
		return
	case err != nil:
		first, _, _ := strings.Cut(err.Error(), "\n")
		s.p.line("#%d ERROR: %s", s.n, first)
		return
	case s.hit:
		s.p.line("#%d CACHED", s.n)
		return
	}
	s.p.line("#%d DONE %.1fs", s.n, time.Since(s.start).Seconds())
}

// output shows what a command writes, line by line, and keeps the end of it for an error message.
type output struct {
	s    *step
	mu   sync.Mutex
	part []byte
	tail [][]byte
}

// tailLines is how many lines of output an error repeats, and maxLine how long a line may be.
const (
	tailLines = 20
	maxLine   = 8 << 10
)

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			o.part = append(o.part, p...)
			if len(o.part) > maxLine {
				o.flush()
			}
			break
		}
		o.part = append(o.part, p[:i]...)
		o.flush()
		p = p[i+1:]
	}
	return n, nil
}

func (o *output) flush() {
	text := printable(o.part)
	o.part = o.part[:0]
	o.s.p.line("#%d %.3f %s", o.s.n, time.Since(o.s.start).Seconds(), text)
	if o.tail = append(o.tail, text); len(o.tail) > tailLines {
		o.tail = o.tail[1:]
	}
}

// end shows a last line that has no end.
func (o *output) end() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.part) > 0 {
		o.flush()
	}
	return string(bytes.Join(o.tail, []byte("\n")))
}

// printable takes what would steer the terminal out of a line.
func printable(line []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, line)
}
