package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/caisson-go/caisson"
)

// stdio connects the standard streams: with -tty through a terminal of the container's own, otherwise directly.
func (c *config) stdio() (caisson.Option, error) {
	opts := []caisson.Option{caisson.WithStdout(os.Stdout)}
	if c.interactive || c.tty {
		opts = append(opts, caisson.WithStdin(os.Stdin))
	}
	if !c.tty {
		return caisson.Options(append(opts, caisson.WithStderr(os.Stderr))...), nil
	}
	var rows, cols uint16
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		w, h, err := term.GetSize(fd)
		if err != nil {
			return nil, err
		}
		rows, cols = uint16(h), uint16(w)
		if value, ok := os.LookupEnv("TERM"); ok {
			c.env = append(list{"TERM=" + value}, c.env...)
		}
	}
	return caisson.Options(append(opts, caisson.WithTerminal(rows, cols))...), nil
}

// connect forwards signals and changes of the window size, and with -tty puts the caller's terminal into raw mode,
// so that each key reaches the command. The function that it returns takes all that back; calling it twice is
// harmless.
func (c *config) connect(p *caisson.Process) (restore func(), err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, append(resizeSignals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)...)
	go forward(signals, p)
	fd, raw := int(os.Stdin.Fd()), (*term.State)(nil)
	if c.tty && term.IsTerminal(fd) {
		if raw, err = term.MakeRaw(fd); err != nil {
			signal.Stop(signals)
			return nil, err
		}
	}
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		if raw != nil {
			_ = term.Restore(fd, raw)
		}
	}), nil
}

// forward hands signals on. The first process of a pid namespace is deaf to those it has no handler for, so a second
// one, or ten seconds after a SIGTERM, kills.
func forward(signals <-chan os.Signal, p *caisson.Process) {
	for asked := 0; ; {
		select {
		case <-p.Done():
			return
		case s := <-signals:
			if isResize(s) {
				if w, h, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
					_ = p.Resize(uint16(h), uint16(w))
				}
				continue
			}
			if asked++; asked > 1 {
				_ = p.Kill()
				continue
			}
			_ = p.Signal(s.(syscall.Signal))
			if s == syscall.SIGTERM {
				go killAfter(p, 10*time.Second)
			}
		}
	}
}

func killAfter(p *caisson.Process, grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if _, err := p.Wait(ctx); ctx.Err() != nil && err != nil {
		_ = p.Kill()
	}
}
