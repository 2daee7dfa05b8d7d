package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/caisson-go/caisson"
)

// monitorWord is the first argument of this program when it supervises a detached container. What follows are the flags of the container's network.
const monitorWord = "-supervise"

// supervision is what has a command looked after.
type supervision struct {
	restart caisson.RestartPolicy
	health  caisson.HealthCheck
}

func (s *supervision) flags(f *flag.FlagSet) {
	f.Func("restart", "start the command again when it ends: `no|on-failure[:N]|always|unless-stopped`", func(text string) error {
		mode, n, counted := strings.Cut(text, ":")
		if err := s.restart.Mode.UnmarshalText([]byte(mode)); err != nil {
			return fmt.Errorf("%q is none of no, on-failure, on-failure:N, always and unless-stopped", text)
		}
		if !counted {
			return nil
		}
		count, err := strconv.Atoi(n)
		if err != nil || count < 1 || s.restart.Mode != caisson.RestartOnFailure {
			return fmt.Errorf("%q: only on-failure takes a number, from 1", text)
		}
		s.restart.MaxRetries = count
		return nil
	})
	f.Func("health", "`TEST` every few seconds: a shell command inside, tcp:PORT or an http:// URL as seen inside; a command that fails it three times is ended, and started again by -restart",
		func(text string) error {
			port, tcp := strings.CutPrefix(text, "tcp:")
			s.health.End = true
			switch {
			case text == "":
				return errors.New("a test is missing")
			case tcp:
				s.health.TCP = "127.0.0.1:" + port
			case strings.HasPrefix(text, "http://"):
				s.health.HTTP = text
			default:
				s.health.Command = []string{"/bin/sh", "-c", text}
			}
			return nil
		})
	f.DurationVar(&s.health.Interval, "health-interval", 0, "time between two tests (`DURATION`); default 30s")
}

// again says that the command is to be started again.
func (s *supervision) again() bool { return s.restart.Mode != caisson.RestartNo }

func (s *supervision) options() (opts []caisson.Option, err error) {
	if s.health.Interval != 0 && !s.health.End {
		return nil, errors.New("-health-interval needs -health")
	}
	if !s.again() {
		if s.health.End {
			return nil, errors.New("-health needs -restart, without which nothing follows from it")
		}
		return nil, nil
	}
	opts = append(opts, caisson.WithRestart(s.restart))
	if s.health.End {
		opts = append(opts, caisson.WithHealthCheck(s.health))
	}
	return opts, nil
}

// monitored has a detached container looked after by this program, which is started once more.
func (c *config) monitored() ([]caisson.Option, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{monitorWord}
	if c.network.handed {
		args = append(args, c.network.arguments()...)
	}
	return []caisson.Option{caisson.WithMonitor(caisson.Monitor{Path: self, Args: args})}, nil
}

// supervise is the main function of the process that stays for a container.
func supervise(args []string) {
	var n network
	f := flag.NewFlagSet("run "+monitorWord, flag.ExitOnError)
	n.flags(f)
	_ = f.Parse(args)
	opts, err := n.options(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
	caisson.MonitorMain(opts...)
}

// logged has the output of the command written to a file as well.
func (c *config) logged() ([]caisson.Option, error) {
	if c.log == "" {
		return nil, nil
	}
	path, err := filepath.Abs(c.log)
	return []caisson.Option{caisson.WithLog(caisson.LogConfig{Path: path, Format: caisson.LogPlain})}, err
}

// outlast waits for the end of the last run. The first signal stops the container for good.
func outlast(ctx context.Context, ctr *caisson.Container) (*caisson.Result, error) {
	told, forget := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer forget()
	stop := context.AfterFunc(told, func() { _ = ctr.Stop(ctx, stopGrace) })
	defer stop()
	return ctr.Wait(ctx)
}
