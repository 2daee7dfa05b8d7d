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
	"strings"
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
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.Monitor))
		if err != nil {
			return err
		}
		_, rss, _ := strings.Cut(string(b), "VmRSS:")
		rss, _, _ = strings.Cut(rss, "\n")
		fmt.Printf("the container is process %d, its monitor process %d, with %s in memory\n", i.Pid, i.Monitor, strings.TrimSpace(rss))
	}
	return nil
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
