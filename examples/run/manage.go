package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/netns/cni"
)

// stopGrace is how long a stopped container has to end by itself, as with docker stop.
const stopGrace = 10 * time.Second

// manage does what concerns containers that were detached; done says that this was all that was asked for.
func (c *config) manage(ctx context.Context, out io.Writer) (done bool, status int, err error) {
	switch {
	case c.list:
		status, err = exitStatus(listAll(ctx, out))
	case c.wait != "":
		status, err = wait(ctx, c.wait)
	case c.stop != "":
		status, err = exitStatus(with(ctx, c.stop, func(ctr *caisson.Container) error { return ctr.Stop(ctx, stopGrace) }))
	case c.remove != "":
		status, err = exitStatus(remove(ctx, c.remove))
	case c.detach:
		status, err = c.runDetached(ctx, out)
	default:
		return false, 0, nil
	}
	return true, status, err
}

// with finds a container and does something with it.
func with(ctx context.Context, id string, do func(*caisson.Container) error) error {
	ctr, err := caisson.Load(ctx, id, netns.Owner(), cni.Owner())
	if err != nil {
		return err
	}
	return errors.Join(do(ctr), ctr.Close())
}

// remove ends and removes a container, and what it had of an image.
func remove(ctx context.Context, id string) error {
	all, _ := caisson.List(ctx) // the container is there, or is not: that is for Load to say
	if err := with(ctx, id, func(ctr *caisson.Container) error { return ctr.Remove(ctx) }); err != nil {
		return err
	}
	for _, i := range all {
		if i.ID == id {
			return forget(ctx, id, i.Labels)
		}
	}
	return nil
}

// wait waits for the end of a container and returns the status of its command.
func wait(ctx context.Context, id string) (status int, err error) {
	err = with(ctx, id, func(ctr *caisson.Container) error {
		r, err := ctr.Wait(ctx)
		if err == nil {
			status = r.ShellCode()
		}
		return err
	})
	if err != nil {
		return exitStatus(err)
	}
	return status, nil
}

// runDetached starts a container that outlives this program, and prints its id.
func (c *config) runDetached(ctx context.Context, out io.Writer) (status int, err error) {
	if c.tty || c.interactive {
		return exitFailed, errors.New("-detach: nobody is there to be interactive with")
	}
	c.id = cmp.Or(c.id, rand.Text()[:12])
	if c.image != "" {
		if err := c.useImage(ctx); err != nil {
			return exitFailed, err
		}
		defer func() {
			if status != 0 {
				err = errors.Join(err, c.volumes.remove())
			}
		}()
	}
	if len(c.command) == 0 {
		return exitFailed, errors.New("-detach needs a command")
	}
	opts, err := c.options(ctx)
	if err != nil {
		return exitFailed, err
	}
	opts = append(opts, caisson.WithDetached(true))
	more, undo, err := c.outputDetached()
	if err != nil {
		return exitFailed, err
	}
	defer undo()
	ctr, err := caisson.New(append(opts, more...)...)
	if err != nil {
		return exitFailed, err
	}
	if _, err := ctr.Start(ctx); err != nil {
		return exitStatus(errors.Join(err, ctr.Close()))
	}
	fmt.Fprintln(out, c.id)
	return exitStatus(ctr.Close())
}

// outputDetached has the output written to the log: by a monitor where there is one, which rotates it, else by the command itself.
func (c *config) outputDetached() (opts []caisson.Option, undo func(), err error) {
	if c.supervision.again() {
		if opts, err = c.monitored(); err != nil {
			return nil, nil, err
		}
		logs, err := c.logged()
		return append(opts, logs...), func() {}, err
	}
	if c.log == "" {
		return nil, func() {}, nil
	}
	f, err := os.OpenFile(c.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return []caisson.Option{caisson.WithStdout(f), caisson.WithStderr(f)}, func() { f.Close() }, nil
}

// listAll prints the detached containers of this user.
func listAll(ctx context.Context, out io.Writer) error {
	all, err := caisson.List(ctx)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tSTATE\tPID\tCREATED\tCOMMAND")
	for _, i := range all {
		state := i.State.String()
		if i.Result != nil {
			state += ", " + i.Result.String()
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\n", i.ID, state, i.Pid, i.Created.Format(time.DateTime), quote(i.Command))
	}
	return errors.Join(tw.Flush(), err)
}
