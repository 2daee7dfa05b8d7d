package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func init() { roles["scarce"] = scarceRole }

// Where the kernel has no memory, descriptor, process or inotify instance left for a call of the host program's, a start fails with that
// errno, or does without. Nothing remains.
func TestScarce(t *testing.T) {
	for _, tt := range []struct{ calls, remedy string }{
		{"socketpair=12", "memory"},
		{"socketpair=24", "RLIMIT_NOFILE"},
		{"memfd_create=24", "RLIMIT_NOFILE"},
		{"pidfd_open=24", "RLIMIT_NOFILE"},
		{"fsopen=12", "memory"},
		{"open_tree=12", "memory"},
		{"mount=28", "fs.mount-max"},
		{"mount=12", "memory"},
		{"clone3=11", "pids.max"},
		{"clone3=12", "memory"},
		{"inotify_init1=24", ""},
		{"timerfd_create=24 eventfd2=24", ""},
		{"pipe2=24", "RLIMIT_NOFILE"},
	} {
		t.Run(tt.calls, func(t *testing.T) {
			noLeaks(t)
			cmd := testutil.Role("scarce", rootEnv+"="+testutil.Busybox(t), forbidEnv+"="+tt.calls, dirEnv+"="+t.TempDir())
			out, err := cmd.Output()
			s := string(out)
			if err != nil || !strings.HasSuffix(s, "nothing left\n") {
				t.Errorf("%v\n%s", err, s)
			}
			if strings.Contains(s, "error: ") && !strings.Contains(s, tt.remedy) {
				t.Errorf("no word of %s in\n%s", tt.remedy, s)
			}
			t.Logf("%s", s)
		})
	}
}

// scarceRole starts a container, takes calls away, and starts more.
func scarceRole() {
	if err := scarceStart(); err != nil {
		fmt.Println("without a fault:", err)
		return
	}
	calls := os.Getenv(forbidEnv)
	_, number, _ := strings.Cut(strings.Fields(calls)[0], "=")
	errno := syscall.Errno(atoi(number))
	spareThreads(64)
	if err := forbid(calls); err != nil {
		fmt.Println("filter:", err)
		return
	}
	first := true
	var before [3]int
	for range 5 {
		err := scarceStart()
		var public *Error
		switch {
		case err == nil:
			fmt.Println("does without")
		case !errors.As(err, &public) || !errors.Is(err, errno):
			fmt.Printf("no typed error: %T %v\n", err, err)
			return
		case first:
			fmt.Println("error:", err)
		}
		if first {
			before, first = leftovers(), false
		}
	}
	if !testutil.Eventually(testTime/4, func() bool {
		after := leftovers()
		return after[0] <= before[0] && after[1] <= before[1] && after[2] <= before[2]
	}) {
		fmt.Println("left behind: before", before, "after", leftovers())
		return
	}
	fmt.Println("nothing left")
}

// spareThreads has the runtime make threads, which it keeps: it dies where it can make none, and a test program that is linked with libc,
// as those of the race detector are, makes them by clone3.
func spareThreads(n int) {
	var all, met sync.WaitGroup
	met.Add(n)
	for range n {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			met.Done()
			met.Wait()
		})
	}
	all.Wait()
}

// scarceStart starts a container with a limit, a log and copied output, and follows the log.
func scarceStart() error {
	ctx := context.Background()
	var out buffer
	opts := []Option{WithRootfs(rootfs.Dir(os.Getenv(rootEnv))), WithCommand("/bin/sh", "-c", "echo said; exit 3"), WithStdout(&out),
		WithLog(LogConfig{Path: filepath.Join(os.Getenv(dirEnv), "log")})}
	if isRoot() {
		opts = append(opts, WithMemory(64<<20))
	} else { // under the filter newuidmap gains no privilege
		opts = append(opts, WithIDMaps(namespaces.SingleIDMaps()))
	}
	c, err := New(opts...)
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Run(ctx)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Result.ExitCode != 3 {
		return err
	}
	if out.String() != "said\n" {
		return fmt.Errorf("it said %q", out.String())
	}
	for _, err := range c.Logs(ctx, LogOptions{Follow: true}) {
		if err != nil {
			return err
		}
	}
	return c.Close()
}
