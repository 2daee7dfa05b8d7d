package caisson

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// pipes are the ends of pipes that were asked for before a start.
type pipes struct {
	stdin, stdout, stderr *os.File   // the process's ends
	ours                  []*os.File // the caller's ends
}

// StdinPipe returns a pipe that will be the standard input of the command at the next start. The caller closes it, to
// say that the input ends; Close of the container and the start after that do so too.
func (c *Container) StdinPipe() (io.WriteCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.mayPipe("stdin pipe", c.spec.process.stdin != nil || c.pipes.stdin != nil); err != nil {
		return nil, err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, c.fail("stdin pipe", err)
	}
	c.pipes.stdin, c.pipes.ours = pr, append(c.pipes.ours, pw)
	return pw, nil
}

// StdoutPipe returns a pipe that will be the standard output of the command at the next start. It reports the end of
// file when every process of the container has closed it. The caller may read on after Wait has returned; Close of the
// container and the start after that close it.
func (c *Container) StdoutPipe() (io.ReadCloser, error) {
	return c.outputPipe("stdout pipe", c.spec.process.stdout, &c.pipes.stdout)
}

// StderrPipe returns a pipe that will be the standard error of the command at the next start; see
// [Container.StdoutPipe].
func (c *Container) StderrPipe() (io.ReadCloser, error) {
	return c.outputPipe("stderr pipe", c.spec.process.stderr, &c.pipes.stderr)
}

func (c *Container) outputPipe(op string, set io.Writer, end **os.File) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.mayPipe(op, set != nil || *end != nil); err != nil {
		return nil, err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, c.fail(op, err)
	}
	*end, c.pipes.ours = pw, append(c.pipes.ours, pr)
	return pr, nil
}

// mayPipe refuses a pipe for a stream that is set, for a terminal, and at the wrong time. The caller holds the lock.
func (c *Container) mayPipe(op string, set bool) error {
	if set {
		return c.fail(op, fmt.Errorf("%w: the stream is set already", ErrInvalid))
	}
	if c.spec.detach.on {
		return c.fail(op, invalid("WithDetached", "a pipe needs a program that lives; give an *os.File"))
	}
	if c.spec.restart.Mode != RestartNo {
		return c.fail(op, invalid("WithRestart", "a pipe is for one run; give an *os.File or a writer"))
	}
	if c.spec.attachable {
		return c.fail(op, invalid("WithAttachable", "the streams are for who attaches"))
	}
	if p := &c.spec.process; p.terminal || (p.outputLimit > 0 || c.spec.copied()) && op != "stdin pipe" {
		return c.fail(op, fmt.Errorf("%w: a terminal, an output limit and a log need a stream that is copied", ErrInvalid))
	}
	if c.ready {
		return c.may(op, StateNew, StateCreated, StateStopped)
	}
	return c.may(op, StateNew, StateStopped)
}

// with returns s with the streams that are pipes.
func (e *pipes) with(s *spec) *spec {
	if len(e.ours) == 0 {
		return s
	}
	with := *s
	p := &with.process
	if e.stdin != nil {
		p.stdin = e.stdin
	}
	if e.stdout != nil {
		p.stdout = e.stdout
	}
	if e.stderr != nil {
		p.stderr = e.stderr
	}
	return &with
}

// started closes the process's ends after a start, and returns what closes the caller's.
func (e *pipes) started() (closeOurs func() error) {
	for _, f := range []*os.File{e.stdin, e.stdout, e.stderr} {
		if f != nil {
			f.Close()
		}
	}
	return func() error {
		var errs []error
		for _, f := range e.ours {
			errs = append(errs, ignoreClosed(f.Close()))
		}
		return errors.Join(errs...)
	}
}

// piped reports whether an output pipe was asked for.
func (c *Container) piped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pipes.stdout != nil || c.pipes.stderr != nil
}
