// Command detach shows a container that outlives the program that started it: the program is killed, and another finds
// the container, waits for it, and learns how it ended.
//
//	go run ./examples/detach
//
// It needs Linux 5.14 and no privilege. "Another program" is this one again, with the word "start".
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/caisson-go/caisson"
)

const id = "lesson-detach"

func main() {
	log.SetFlags(0)
	f := comeBack
	if len(os.Args) > 1 && os.Args[1] == "start" {
		f = start
	}
	if err := f(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// start starts the container and dies the hardest way there is.
func start(ctx context.Context) error {
	c, err := caisson.New(caisson.WithID(id), caisson.WithDetached(true), caisson.WithCommand("sh", "-c", "sleep 1; exit 7"))
	if err != nil {
		return err
	}
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("program %d: the container runs as process %d; now I am killed\n", os.Getpid(), p.Pid())
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// comeBack has the other program start the container, and then looks for what is left.
func comeBack(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	other := exec.CommandContext(ctx, self, "start")
	other.Stdout, other.Stderr = os.Stdout, os.Stderr
	err = other.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		return errors.Join(errors.New("the other program should have been killed"), err)
	}
	fmt.Printf("program %d: the other one has ended: %v\n", os.Getpid(), err)

	c, err := caisson.Load(ctx, id)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Printf("program %d: the container is %v, as process %d\n", os.Getpid(), c.State(), c.Process().Pid())
	r, err := c.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("program %d: it ended with %v after %v\n", os.Getpid(), r, r.Wall.Round(100*time.Millisecond))
	return c.Remove(ctx)
}
