// Command monitor shows a detached container that needs a living program, and has one of its own: a monitor, which restarts its
// command, writes its log, and connects it with whoever attaches, from any program. The same file is the ready monitor: "serve" is
// all that another program needs to name in caisson.WithMonitor.
//
//	go run ./examples/monitor
//
// It needs Linux 5.14 and no privilege.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/caisson-go/caisson"
)

const id = "lesson-monitor"

func main() {
	log.SetFlags(0)
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		caisson.MonitorMain() // does not return
	}
	if err := lesson(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// script is a server that counts what it is sent, and fails at times.
const script = `echo started; while read line; do echo "got $line"; test "$line" != crash || exit 1; done`

func lesson(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "caisson-lesson-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := caisson.New(
		caisson.WithID(id), caisson.WithDetached(true), caisson.WithCommand("sh", "-c", script),
		caisson.WithMonitor(caisson.Monitor{Path: self, Args: []string{"serve"}}),
		caisson.WithAttachable(true),
		caisson.WithLog(caisson.LogConfig{Path: filepath.Join(dir, "log"), MaxSize: 1 << 20, MaxFiles: 2}),
		caisson.WithRestart(caisson.RestartPolicy{Mode: caisson.RestartUnlessStopped}))
	if err != nil {
		return err
	}
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil { // this program lets go of it; the monitor does not
		return err
	}

	// From here on it could be another program.
	if c, err = caisson.Load(ctx, id); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(ctx)) }()
	if err := showMonitor(ctx); err != nil {
		return err
	}
	if err := say(ctx, c, "hello\ncrash\n"); err != nil {
		return err
	}
	for c.RestartCount() == 0 || c.State() != caisson.StateRunning {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("it was started again: another process %t, restarts %d\n", c.Process().Pid() != p.Pid(), c.RestartCount())
	if err := say(ctx, c, "again\ncrash\n"); err != nil {
		return err
	}
	if err := c.Stop(ctx, time.Second); err != nil {
		return err
	}
	fmt.Printf("it is %v, and stays so; its log:\n", c.State())
	for e, err := range c.Logs(ctx, caisson.LogOptions{Tail: 100}) {
		if err != nil {
			return err
		}
		fmt.Printf("\t%v: %s\n", e.Stream, e.Text)
	}
	return nil
}

// showMonitor tells which process is the monitor, and how much memory it takes.
func showMonitor(ctx context.Context) error {
	l, err := caisson.List(ctx)
	if err != nil {
		return err
	}
	for _, i := range l {
		if i.ID != id {
			continue
		}
		kib, err := resident(i.Monitor)
		for range 20 { // a start takes more, for a moment
			if err == nil && kib > 8<<10 {
				time.Sleep(500 * time.Millisecond)
				kib, err = resident(i.Monitor)
			}
		}
		if err != nil {
			return err
		}
		fmt.Printf("the container is process %d, its monitor process %d, with %d KiB in memory\n", i.Pid, i.Monitor, kib)
	}
	return nil
}

// resident returns how much memory a process has, in KiB: the second field of /proc/PID/statm.
func resident(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, pages int
	_, err = fmt.Sscan(string(b), &size, &pages)
	return pages * os.Getpagesize() >> 10, err
}

// say attaches, sends some lines, and shows what comes back until the command ends.
func say(ctx context.Context, c *caisson.Container, lines string) error {
	r, w := io.Pipe()
	a, err := c.Attach(ctx, caisson.AttachOptions{Stdin: r, Stdout: os.Stdout})
	if err != nil {
		return err
	}
	defer r.Close()
	go io.WriteString(w, lines) //nolint:errcheck // ends with r
	return a.Wait(ctx)
}
