// Command run executes a command in a container, much as docker run does, but without a daemon, an image or any
// set-up: the default root filesystem shows the host's own programs under a throw-away writable layer.
//
//	go run ./examples/run
//	go run ./examples/run -memory 64M -cpus 0.5 -pids 100 -- sh -c 'echo hello from $(hostname)'
//
// It needs Linux 5.14 and works as root and as an ordinary user. The library does the containing; what is here turns
// flags into options (options.go), connects the terminal (terminal.go) and reports (report.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/caisson-go/caisson"
)

// Exit statuses for what is not the command's own doing; the same as docker run's.
const (
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// demonstration is run when there is neither a command nor a terminal.
const demonstration = `echo "Hello from a container."
echo "I am $(id -un) on $(hostname), and process $$."
echo "/home holds $(ls -A /home | wc -l) files, and the network has:" $(ls /sys/class/net)`

func main() {
	if len(os.Args) > 1 && os.Args[1] == monitorWord {
		supervise(os.Args[2:]) // does not return
	}
	c, err := parse(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		os.Exit(exitFailed) // package flag has said why
	}
	status, err := c.run(context.Background(), os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

// run makes the container, follows the command to its end and returns the exit status.
func (c *config) run(ctx context.Context, report io.Writer) (status int, err error) {
	if c.quiet {
		report = io.Discard
	}
	if done, status, err := c.manage(ctx, os.Stdout); done {
		return status, err
	}
	if c.image != "" {
		if err := c.useImage(ctx); err != nil {
			return exitFailed, err
		}
		defer func() { err = errors.Join(err, c.volumes.remove()) }() // when the container is closed
	}
	c.defaultCommand()
	streams, err := c.stdio()
	if err != nil {
		return exitFailed, err
	}
	if c.tty && c.supervision.again() {
		return exitFailed, errors.New("-restart: a terminal is for one run")
	}
	if c.tty && !c.explain && !term.IsTerminal(int(os.Stdin.Fd())) {
		return exitFailed, errors.New("-t: standard input is no terminal, so that the command would wait for input that cannot come: leave out -t, or give it a terminal")
	}
	opts, err := c.options(ctx)
	if err != nil {
		return exitFailed, err
	}
	logs, err := c.logged()
	if err != nil {
		return exitFailed, err
	}
	opts = append(opts, logs...)
	ctr, err := caisson.New(append(opts, streams)...)
	if err != nil {
		return exitFailed, err
	}
	defer ctr.Close()
	if c.explain {
		return exitStatus(ctr.Explain(ctx, os.Stdout))
	}
	// Between Create and Start everything stands but the command itself, so that it can be looked at.
	p, err := ctr.Create(ctx)
	if err != nil {
		return exitStatus(err)
	}
	c.writeBefore(report, p.Pid(), ctr.Isolation())
	c.network.report(report)
	restore, err := c.connect(p)
	if err != nil {
		return exitFailed, err
	}
	defer restore()
	if _, err := ctr.Start(ctx); err != nil {
		return exitStatus(err)
	}
	var res *caisson.Result
	if c.supervision.again() {
		restore()
		res, err = outlast(ctx, ctr)
	} else {
		res, err = p.Wait(ctx)
		restore()
	}
	if err != nil {
		return exitStatus(err)
	}
	writeAfter(report, res)
	return res.ShellCode(), ctr.Close()
}

// exitStatus returns the status that stands for an error of caisson.
func exitStatus(err error) (int, error) {
	switch {
	case err == nil:
		return 0, nil
	case errors.Is(err, caisson.ErrCommandNotFound):
		return exitNotFound, err
	case errors.Is(err, caisson.ErrCommandNotExecutable):
		return exitNotExecutable, err
	}
	return exitFailed, err
}

// defaultCommand chooses what is run when nothing was said.
func (c *config) defaultCommand() {
	switch {
	case len(c.command) > 0:
	case term.IsTerminal(int(os.Stdin.Fd())):
		c.command, c.tty = []string{"/bin/sh"}, true
	case c.interactive:
		c.command = []string{"/bin/sh"}
	default:
		c.command = []string{"/bin/sh", "-c", demonstration}
	}
}
