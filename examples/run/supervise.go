package main

import (
	"cmp"
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
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
)

// monitorWord is the first argument of this program when it supervises a detached container. What follows are the flags of the container's network and image.
const monitorWord = "-supervise"

// supervision is what has a command looked after.
type supervision struct {
	restart caisson.RestartPolicy
	health  caisson.HealthCheck
	unasked bool // not even as the image says
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
	f.Func("health", "`TEST` every few seconds: a shell command inside, tcp:PORT or an http:// URL as seen inside; a command that fails it three times is ended, and started again by -restart; \"none\" leaves out that of the image",
		func(text string) error {
			port, tcp := strings.CutPrefix(text, "tcp:")
			s.health.End, s.unasked = text != "none", text == "none"
			switch {
			case s.unasked:
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

// fromImage takes the image's health check, unless the command line has one, where something follows from it: with -restart.
func (s *supervision) fromImage(c *image.Config) error {
	if s.health.End || s.unasked || !s.again() {
		return nil
	}
	command, err := c.Healthcheck.Command(c.Shell)
	if err != nil || command == nil {
		return err
	}
	h := c.Healthcheck
	given := func(nanoseconds int64) time.Duration { return time.Duration(max(nanoseconds, 0)) } // zero is the library's default, which is Docker's
	s.health = caisson.HealthCheck{Command: command, Interval: cmp.Or(s.health.Interval, given(h.Interval)), Timeout: given(h.Timeout), StartPeriod: given(h.StartPeriod),
		StartInterval: given(h.StartInterval), Retries: max(h.Retries, 0), End: true}
	return nil
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
	if c.imageHanded() {
		args = append(args, c.imageArguments()...)
	}
	return []caisson.Option{caisson.WithMonitor(caisson.Monitor{Path: self, Args: args})}, nil
}

// supervise is the main function of the process that stays for a container.
func supervise(args []string) {
	var c config
	f := flag.NewFlagSet("run "+monitorWord, flag.ExitOnError)
	c.network.flags(f)
	f.StringVar(&c.found, "image", "", "")
	f.StringVar(&c.store, "store", "", "")
	f.StringVar(&c.id, "id", "", "")
	f.Var(&c.disk, "disk", "")
	_ = f.Parse(args)
	opts, err := c.network.options(context.Background())
	if err == nil {
		var more []caisson.Option
		more, err = c.imageOption()
		opts = append(opts, more...)
	}
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
