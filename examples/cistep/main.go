// Command cistep runs one step of a build as a CI system does: a shell script in a clean environment, with the
// workspace bound in, and a log that is shown live with the time of each line.
//
//	go run ./examples/cistep -workspace . 'ls && test -f go.mod'
//
// The step may change the workspace and nothing else. Needs Linux 5.14 and no privilege.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	log.SetFlags(0)
	workspace := flag.String("workspace", ".", "`DIR` that the step works on")
	timeout := flag.Duration("timeout", 10*time.Minute, "longest time that the step may take")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("cistep: give one shell script")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := step(ctx, *workspace, flag.Arg(0), *timeout, os.Stdout)
	var failed *caisson.ExitError
	switch {
	case errors.As(err, &failed):
		log.Printf("step failed: %v", err)
		os.Exit(failed.Result.ShellCode())
	case err != nil:
		log.Fatal(err)
	}
	log.Print("step passed")
}

// step runs a script in the workspace and writes its output to w as it comes. A step that fails is a
// *caisson.ExitError; any other error means that it did not run.
func step(ctx context.Context, workspace, script string, timeout time.Duration, w io.Writer) error {
	dir, err := filepath.Abs(workspace)
	if err != nil {
		return err
	}
	lines, out := io.Pipe()
	logged := make(chan error, 1)
	go func() { logged <- stamp(w, lines) }()
	c, err := caisson.New(
		caisson.WithCommand("sh", "-euc", script),
		caisson.WithMount(bindWorkspace(dir), rootfs.TmpfsMount("/tmp", 512<<20)),
		caisson.WithDir("/workspace"),
		caisson.WithEnv("CI=true", "HOME=/tmp"),
		caisson.WithStdout(out),
		caisson.WithStderr(out),
		caisson.WithTimeout(timeout),
	)
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Run(ctx)
	out.Close()
	return errors.Join(err, <-logged)
}

// bindWorkspace shows the directory as it is, with the owners that its files have outside: the script's root user is not root there, so
// for root they are mapped. An ordinary user's own files belong to the script's root user where only one id is mapped.
func bindWorkspace(dir string) rootfs.Mount {
	m := rootfs.BindMount(dir, "/workspace")
	if os.Geteuid() == 0 {
		m.IDMap = rootfs.MappedTop
	}
	return m
}

// stamp copies line by line and puts the time since the start before each.
func stamp(w io.Writer, r *io.PipeReader) error {
	begin := time.Now()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if _, err := fmt.Fprintf(w, "%8.3fs  %s\n", time.Since(begin).Seconds(), s.Bytes()); err != nil {
			return r.CloseWithError(err)
		}
	}
	return r.CloseWithError(s.Err())
}
