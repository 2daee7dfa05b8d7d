package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
)

func kill(ctx context.Context, g *global, args []string) error {
	f := newFlags("kill", "CONTAINER [SIGNAL]", 1, 2)
	all := f.toggle("all", "a")
	regex := f.toggle("regex", "r")
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	if *regex {
		return errors.New("kill --regex: give the id of one container")
	}
	sig := syscall.SIGTERM
	if len(args) == 2 && args[1] != "" {
		if sig, err = parseSignal(args[1]); err != nil {
			return err
		}
	}
	c, err := g.load(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if *all && sig != 0 { // 0 is for the first process alone
		return c.SignalAll(sig)
	}
	if c.State() == caisson.StateStopped {
		return errNotRunning
	}
	if err := c.Process().Signal(sig); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return errNotRunning
}

// errNotRunning is what engines look for when the process has ended already.
var errNotRunning = errors.New("container not running")

// parseSignal reads a number, or a name with or without SIG.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 { // 0 asks whether there is a process
		return syscall.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	const first, last = 34, 64 // as the C library has them
	for _, r := range []struct {
		name       string
		from, sign int
	}{{"SIGRTMIN", first, 1}, {"SIGRTMAX", last, -1}} {
		rest, ok := strings.CutPrefix(name, r.name)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil || n*r.sign < 0 {
				break
			}
		}
		if n += r.from; n >= first && n <= last {
			return syscall.Signal(n), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

func remove(ctx context.Context, g *global, args []string) error {
	f := newFlags("delete", "CONTAINER", 1, 1)
	force := f.toggle("force", "f")
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	c, err := g.load(ctx, args[0])
	if *force && errors.Is(err, caisson.ErrNotFound) && !errors.Is(err, caisson.ErrInvalid) {
		_, rerr := g.dir().Recover(ctx)
		g.forgetNotify(args[0])
		return rerr
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if st := c.State(); !*force && st != caisson.StateStopped && st != caisson.StateCreated {
		return fmt.Errorf("cannot delete container %s that is not stopped: %v", args[0], st)
	}
	if err := c.Remove(ctx); err != nil {
		return err
	}
	g.forgetNotify(args[0])
	return nil
}

func pause(ctx context.Context, g *global, args []string) error {
	return freeze(ctx, g, "pause", args, (*caisson.Container).Pause)
}

func resume(ctx context.Context, g *global, args []string) error {
	return freeze(ctx, g, "resume", args, (*caisson.Container).Resume)
}

func freeze(ctx context.Context, g *global, name string, args []string, do func(*caisson.Container, context.Context) error) error {
	args, err := newFlags(name, "CONTAINER", 1, 1).parse(args)
	if err != nil {
		return err
	}
	c, err := g.load(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c, ctx)
}
