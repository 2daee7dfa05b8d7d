// Command checkpoint stops a computation in a container, writes it to disk, and lets it go on in another container, from
// where it was.
//
//	sudo go run ./examples/checkpoint
//
// It needs root, and CRIU (Debian: package criu) of a version that fits the kernel. Where that is not so it says what is
// missing, and shows that the computation was not disturbed.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	if err := lesson(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// The computation has all that a checkpoint must keep: numbers in memory, a file, and a pipe to the outside.
const computation = `i=0; while :; do i=$((i+1)); echo $i >/result; echo $i; sleep 0.1; done`

func lesson(ctx context.Context) error {
	tmp, err := os.MkdirTemp("", "checkpoint-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root, images := filepath.Join(tmp, "root"), filepath.Join(tmp, "images")
	// What the computation writes must still be there when it goes on: so it does not write to a throw-away layer, but to a
	// directory. The host's programs are mounted in it, read-only.
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	opts := []caisson.Option{caisson.WithRootfs(rootfs.Dir(root).Writable()), caisson.WithCommand("/bin/sh", "-c", computation)}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if _, err := os.Stat(dir); err == nil {
			opts = append(opts, caisson.WithMount(rootfs.ReadOnlyBindMount(dir, dir)))
		}
	}

	fmt.Println("1. a container counts")
	first, err := caisson.New(opts...)
	if err != nil {
		return err
	}
	defer first.Close()
	err = follow(ctx, first, 3)
	if err != nil {
		return err
	}

	fmt.Println("2. it is written to disk")
	err = first.Checkpoint(ctx, caisson.CheckpointConfig{Dir: images})
	if errors.Is(err, caisson.ErrUnsupported) {
		fmt.Println("   not here:", err)
		fmt.Println("   it goes on as if nothing had been asked for:", first.State())
		return nil
	}
	if err != nil {
		return err
	}
	res, err := first.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Println("   how it ended:", res)
	if err := first.Close(); err != nil {
		return err
	}

	fmt.Println("3. another container goes on from there")
	second, err := caisson.New(append(opts, caisson.WithRestore(images))...)
	if err != nil {
		return err
	}
	defer second.Close()
	return follow(ctx, second, 3)
}

// follow starts a container and shows the first lines that it writes. The rest is read and dropped, so that it never waits.
func follow(ctx context.Context, c *caisson.Container, lines int) error {
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if _, err := c.Start(ctx); err != nil {
		return err
	}
	s := bufio.NewScanner(out)
	for i := 0; i < lines && s.Scan(); i++ {
		fmt.Println("  ", s.Text())
	}
	go io.Copy(io.Discard, out)
	return s.Err()
}
