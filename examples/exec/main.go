// Command exec starts further processes in a container that runs: in its namespaces and its root filesystem, each with a
// user, an environment, limits and a result of its own.
//
//	go run ./examples/exec
//
// It needs Linux 5.14 and no privilege.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/caisson-go/caisson"
)

func main() {
	if err := lesson(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func lesson(ctx context.Context) error {
	c, err := caisson.New(caisson.WithHostname("box"), caisson.WithEnv("COLOR=blue"), caisson.WithDir("/tmp"),
		caisson.WithCommand("sh", "-c", "echo made by the first process > /tmp/note; while :; do sleep 1; done"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Start(ctx); err != nil {
		return err
	}

	// What is not said is as the first process has it: environment, directory, user, capabilities, filter.
	fmt.Println("1. another process sees what the first one does")
	show(ctx, c, caisson.WithCommand("sh", "-c",
		`until [ -e note ]; do sleep 0.1; done; echo "$(hostname), $COLOR, $PWD, $(cat note); process 1 is $(cat /proc/1/comm)"`))

	fmt.Println("2. and has its own where it is said")
	show(ctx, c, caisson.WithCommand("sh", "-c", `echo "$COLOR, $PWD"; grep CapEff /proc/self/status`),
		caisson.WithEnv("COLOR=red"), caisson.WithDir("/"), caisson.WithCapabilities())

	fmt.Println("3. it ends by itself, or is ended, without the container")
	show(ctx, c, caisson.WithCommand("sh", "-c", "exit 3"))
	show(ctx, c, caisson.WithCommand("sleep", "1000"), caisson.WithTimeout(100*time.Millisecond))
	show(ctx, c, caisson.WithCommand("yes"), caisson.WithOutputLimit(10))
	fmt.Println("   the container is", c.State())

	fmt.Println("4. many at once")
	took, err := many(ctx, c, 50)
	if err != nil {
		return err
	}
	fmt.Printf("   50 processes in %v\n", took.Round(time.Millisecond))

	fmt.Println("5. they end with the container")
	p, err := c.Exec(ctx, caisson.WithCommand("sleep", "1000"))
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	r, err := p.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Println("   it had no time to end:", r)
	if _, err := c.Exec(ctx, caisson.WithCommand("true")); !errors.Is(err, caisson.ErrClosed) {
		return fmt.Errorf("exec in a closed container: %w", err)
	}
	return nil
}

// show runs a process in the container and prints what it wrote and how it ended.
func show(ctx context.Context, c *caisson.Container, opts ...caisson.ProcessOption) {
	var out bytes.Buffer
	p, err := c.Exec(ctx, append(opts, caisson.WithStdout(&out), caisson.WithStderr(&out))...)
	if err != nil {
		fmt.Println("  ", err)
		return
	}
	r, err := p.Wait(ctx)
	if err != nil {
		fmt.Println("  ", err)
		return
	}
	for line := range strings.Lines(out.String()) {
		fmt.Print("   ", strings.TrimRight(line, "\n"), "\n")
	}
	if !r.Success() {
		fmt.Println("   ended:", r)
	}
}

// many runs n processes, four at a time.
func many(ctx context.Context, c *caisson.Container, n int) (time.Duration, error) {
	began := time.Now()
	errs := make([]error, n)
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			p, err := c.Exec(ctx, caisson.WithCommand("true"))
			if err == nil {
				_, err = p.Wait(ctx)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}
