package caisson

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"
)

// Process is a process in a container, made by Start or Create. Its methods can be called from any number of
// goroutines.
type Process struct {
	pid  int
	done chan struct{} // closed when the process has ended and its result is complete

	mu     sync.Mutex
	reason Reason    // why it is being ended; ReasonUnknown while nobody ends it
	began  time.Time // when the command was begun; zero while the container is only created
	result *Result
	err    error // of Wait, when the result is not complete

	h processHandle

	// attended supervises the process, where that is left to who started it: no other goroutine has to be woken then.
	attended func()
}

// attend supervises the process until its end, if that was left to the caller.
func (p *Process) attend() {
	if p.attended != nil {
		p.attended()
	}
}

// processHandle is the part of a process that the operating system knows.
type processHandle interface {
	signal(sig os.Signal) error
	// killAll ends every process of the container.
	killAll() error
	resize(rows, cols uint16) error
	hasTerminal() bool
	passPidfd(socket string) error
	watchContext(ctx context.Context, p *Process)
	// ending reports whether the process is on its way out: what it takes along has ended, or is about to.
	ending() bool
}

// Pid returns the process id in the host program's pid namespace. It is for display: the id may be in use by
// another process after the end.
func (p *Process) Pid() int { return p.pid }

// Done returns a channel that is closed when the process has ended and its result is known.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process, of all others in the container, and of the copying of its streams, and
// returns the result. The error is that of ctx; [ErrStatusUnknown], with a result that says so; or a fault in
// copying the streams, with the result.
func (p *Process) Wait(ctx context.Context) (*Result, error) {
	if ctx.Done() == nil {
		p.attend()
	}
	select {
	case <-p.done:
	default:
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return p.result, p.err
}

// Signal sends a signal to the process. The first process of a pid namespace ignores signals it has no handler
// for, except SIGKILL and SIGSTOP. [os.ErrProcessDone] means that it has ended.
func (p *Process) Signal(sig os.Signal) error { return p.h.signal(sig) }

// Kill ends the process at once. With the container's first process all others in the container end.
func (p *Process) Kill() error { return p.kill(ReasonStopped) }

// Resize sets the size of the terminal.
func (p *Process) Resize(rows, cols uint16) error { return p.h.resize(rows, cols) }

// HasTerminal reports whether the process has a terminal whose master side is held here, so that Resize works.
func (p *Process) HasTerminal() bool { return p.h.hasTerminal() }

// PassPidfd sends a process descriptor (pidfd_open(2)) as SCM_RIGHTS to the program that listens on a Unix stream socket.
// [os.ErrProcessDone] means that the process has ended and was collected.
func (p *Process) PassPidfd(socket string) error { return p.h.passPidfd(socket) }

// kill ends the container for a reason, which the result gives unless an earlier one did.
func (p *Process) kill(why Reason) error {
	p.mu.Lock()
	select {
	case <-p.done:
		p.mu.Unlock()
		return nil
	default:
	}
	if p.reason == ReasonUnknown {
		p.reason = why
	}
	p.mu.Unlock()
	return p.h.killAll()
}

// beginsAt notes when the command was begun.
func (p *Process) beginsAt(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = t
}

// endWith ends the container when ctx ends.
func (p *Process) endWith(ctx context.Context) { p.h.watchContext(ctx, p) }

func (p *Process) stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	p.mu.Lock()
	if p.reason == ReasonUnknown && p.result == nil {
		p.reason = ReasonStopped
	}
	p.mu.Unlock()
	if grace > 0 {
		_ = p.Signal(sig) // a process that is gone already is what Stop wants
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-p.done:
			return nil
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if err := p.h.killAll(); err != nil {
		return err
	}
	<-p.done
	return nil
}
