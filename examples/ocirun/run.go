package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/caisson-go/caisson"
)

func run(ctx context.Context, g *global, args []string) error {
	f := newFlags("run", "CONTAINER", 1, 1)
	w := f.wish(true)
	w.detach = f.toggle("detach", "d")
	keep := f.toggle("keep", "")
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	return g.runs(ctx, w, args[0], *keep)
}

// runs makes and starts a container, and waits for its end unless it is to be left.
func (g *global) runs(ctx context.Context, w *wish, id string, keep bool) error {
	signals := notified(*w.detach)
	c, err := g.make(w, id, *w.detach, caisson.WithAutoRemove(!*w.detach && !keep))
	if err != nil {
		return err
	}
	defer c.Close()
	signals.await()
	n, err := g.notifierFor(ctx, c, w)
	if err != nil {
		return explain(id, err)
	}
	defer n.close()
	p, err := c.Start(ctx)
	if err != nil {
		if n != nil { // it was created, and a container whose start fails keeps its record
			err = g.orRemove(ctx, c, err)
		} else {
			g.forgetFailed(id, err)
		}
		return explain(id, err)
	}
	if err := w.announce(p); err != nil {
		return g.orRemove(ctx, c, err)
	}
	if *w.detach {
		return n.pass(ctx, p, p.Pid())
	}
	go func() {
		if err := n.pass(ctx, p, 0); err != nil {
			g.report(err)
		}
	}()
	status := follow(ctx, p, signals)
	if !keep {
		if err := c.Remove(ctx); err != nil { // what is left of it
			g.report(err)
		}
		g.forgetNotify(id)
	}
	return status
}

// signals are those for the process. Each that is asked for takes the runtime two changes of threads: what users, terminals and service
// managers send is asked for while the container is prepared, the others when its process has lived for a moment.
type signals struct {
	ch    chan os.Signal
	asked chan struct{} // closed when the first have been asked for
}

// usual are the signals that are asked for before the process runs. Those that would end a Go program that has not asked for them are all here, so that none
// leaves a container that nobody follows; others, like those of real time, do nothing to it (os/signal).
var usual = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTERM,
	syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGWINCH, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS, unix.SignalNum("SIGSTKFLT")}

// aMoment is how old a process is when all other signals are asked for. Few of the commands that end at once get that old.
const aMoment = 10 * time.Millisecond

// notified asks for signals, unless nobody is to follow the process.
func notified(leaves bool) *signals {
	if leaves {
		return nil
	}
	s := &signals{make(chan os.Signal, 64), make(chan struct{})}
	go func() {
		signal.Notify(s.ch, usual...)
		close(s.asked)
	}()
	return s
}

// await returns when none of the usual signals is lost any more. It is nothing for nil.
func (s *signals) await() {
	if s != nil {
		<-s.asked
	}
}

// follow waits for the end of a process, hands on signals, and keeps the terminal in step. The error is its exit status.
func follow(ctx context.Context, p *caisson.Process, s *signals) error {
	restore := rawTerminal(p)
	defer restore()
	go func() {
		for sig := range s.ch {
			switch sig {
			case syscall.SIGCHLD, unix.SIGURG: // the former is about children, the latter the Go runtime's
			case syscall.SIGWINCH:
				resize(p)
			default:
				_ = p.Signal(sig)
			}
		}
	}()
	all := time.AfterFunc(aMoment, func() { signal.Notify(s.ch) })
	defer all.Stop()
	r, err := p.Wait(ctx) // signals are taken to the end, so that none interrupts a removal
	if err != nil && !(r != nil && errors.Is(err, caisson.ErrStatusUnknown)) {
		return err
	}
	if code := r.ShellCode(); code != 0 {
		return exitError(code)
	}
	return nil
}

// hasTerminal reports whether somebody can be at the process's terminal: a standard stream of this program is one, or it has
// a controlling one. Without, the process would wait for input that cannot come.
func hasTerminal() bool {
	if slices.ContainsFunc([]int{0, 1, 2}, term.IsTerminal) {
		return true
	}
	f, err := os.Open("/dev/tty")
	if err == nil {
		f.Close()
	}
	return err == nil
}

// rawTerminal has the process's terminal do what that of this program did, if both have one.
func rawTerminal(p *caisson.Process) func() {
	if !p.HasTerminal() || !term.IsTerminal(0) {
		return func() {}
	}
	resize(p)
	old, err := term.MakeRaw(0)
	if err != nil {
		return func() {}
	}
	return func() { _ = term.Restore(0, old) }
}

func resize(p *caisson.Process) {
	if cols, rows, err := term.GetSize(0); err == nil {
		_ = p.Resize(uint16(rows), uint16(cols))
	}
}
