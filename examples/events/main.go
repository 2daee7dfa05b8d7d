// Command events prints what happens to a container that is paused, given other limits, stopped, and that runs out of memory.
//
//	go run ./examples/events
//
// It needs Linux 5.14. Pausing and limits need a cgroup that can be written: root, or systemd-run --user --scope
// -p Delegate=yes. Without one it prints what is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
)

func main() {
	ctx := context.Background()
	if err := watched(ctx, "sleep", life, caisson.WithCommand("sleep", "1000")); err != nil {
		log.Fatal(err)
	}
	// tail keeps all that it reads of a file without lines: it meets the limit, and the kernel ends it.
	err := watched(ctx, "tail", func(ctx context.Context, c *caisson.Container) error { return c.Run(ctx) },
		caisson.WithCommand("tail", "/dev/zero"), caisson.WithMemory(32<<20))
	if err != nil && !errors.As(err, new(*caisson.ExitError)) {
		fmt.Fprintln(os.Stderr, "no lesson about memory:", err)
	}
}

// watched makes a container and prints its events while use does something with it.
func watched(ctx context.Context, id string, use func(context.Context, *caisson.Container) error, opts ...caisson.Option) error {
	c, err := caisson.New(append(opts, caisson.WithID(id))...)
	if err != nil {
		return err
	}
	events := c.Events(ctx) // noted from here on
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range events {
			if err != nil {
				fmt.Println("no more events:", err)
				return
			}
			show(e)
		}
	}()
	err = use(ctx, c)
	err = errors.Join(err, c.Close()) // ends the sequence
	<-done
	return err
}

func show(e caisson.Event) {
	fmt.Printf("%s: %v\n", e.ID, e)
	if e.Kind == caisson.EventOOM {
		fmt.Printf("\tthe limit is %d MiB\n", e.MemoryLimit>>20)
		for _, v := range e.Group.Victims { // known to who may read the kernel's log
			fmt.Printf("\tprocess %d (%q) was ended\n", v.PID, v.Command)
		}
	}
}

// life does with a container what can be done without its help.
func life(ctx context.Context, c *caisson.Container) error {
	if _, err := c.Start(ctx); err != nil {
		return err
	}
	steps := []func() error{
		func() error { return c.Pause(ctx) },
		func() error { return c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 10}}) },
		func() error { return c.Resume(ctx) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			fmt.Fprintln(os.Stderr, err) // an ordinary user without a cgroup is told what is missing
			break
		}
	}
	return c.Stop(ctx, 0)
}
