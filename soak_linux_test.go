package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// soakEnv names the environment variable that says how many containers TestSoak starts.
const soakEnv = "CAISSON_SOAK"

// TestSoak starts many containers from two goroutines, good and bad ones mixed. At the end the host program holds
// what it held at the beginning, and no more threads than a Go program of its kind has.
func TestSoak(t *testing.T) {
	n := 60
	if v := os.Getenv(soakEnv); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatalf("%s: %v", soakEnv, err)
		}
	}
	root := rootfs.Dir(testutil.Busybox(t))
	for i := range soakKinds { // what is opened once and kept, such as the place of the cgroups
		if err := soakOne(root, i); err != nil {
			t.Fatal(err)
		}
	}
	noLeaks(t)
	threads := testutil.Threads()
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 2 {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n && failed.Load() < 5; i = int(next.Add(1)) {
				if err := soakOne(root, i); err != nil {
					failed.Add(1)
					t.Errorf("container %d: %v", i, err)
				}
				if i%1000 == 0 {
					t.Logf("%d containers, %d threads, %v", i, testutil.Threads(), time.Since(began).Round(time.Second))
				}
			}
		})
	}
	wg.Wait()
	if grown := testutil.Threads() - threads; grown > 16 {
		t.Errorf("%d more threads", grown)
	}
}

// soakKinds are the lives that containers have in TestSoak, and what is to come of them.
var soakKinds = []struct {
	name string
	opts []Option
	want func(error) bool
}{
	{"good", []Option{WithCommand("/bin/true")}, func(err error) bool { return err == nil }},
	{"output", []Option{WithCommand("/bin/echo", "hello"), WithStdout(io.Discard), WithStderr(new(buffer))}, func(err error) bool { return err == nil }},
	{"exit code", []Option{WithCommand("/bin/sh", "-c", "exit 3")}, func(err error) bool {
		var e *ExitError
		return errors.As(err, &e) && e.Result.ExitCode == 3
	}},
	{"no command", []Option{WithCommand("/bin/nothing")}, func(err error) bool { return errors.Is(err, ErrCommandNotFound) }},
	{"no directory", []Option{WithCommand("/bin/true"), WithDir("/nowhere")}, func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
	{"no root", []Option{WithCommand("/bin/true"), WithRootfs(rootfs.Dir("/nowhere"))}, func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
	{"killed", []Option{WithCommand("/bin/sleep", "100"), WithTimeout(20 * time.Millisecond)}, func(err error) bool {
		var e *ExitError
		return errors.As(err, &e) && e.Result.Reason == ReasonTimeout
	}},
	{"canceled", []Option{WithCommand("/bin/sleep", "100")}, func(err error) bool {
		var e *ExitError
		return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &e) && e.Result.Reason == ReasonCanceled
	}},
}

func soakOne(root rootfs.Source, i int) error {
	k := soakKinds[i%len(soakKinds)]
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	if k.name == "canceled" { // at any moment of the start, or after it
		cancel()
		ctx, cancel = context.WithTimeout(context.Background(), time.Duration(i%97)*100*time.Microsecond)
	}
	defer cancel()
	opts := []Option{WithRootfs(root)}
	if isRoot() {
		opts = append(opts, WithMemory(64<<20), WithPids(50), WithBestEffort(true))
	}
	c, err := New(append(opts, k.opts...)...)
	if err != nil {
		return err
	}
	if err := c.Run(ctx); !k.want(err) {
		c.Close()
		return fmt.Errorf("%s: %w", k.name, errors.Join(err, errors.New("is not what was to come")))
	}
	return c.Close()
}
