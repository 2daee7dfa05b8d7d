package caisson

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// soakEnv names the environment variable that says how many containers the soak test starts.
const soakEnv = "CAISSON_SOAK"

// fault decides, for the start that is being compiled, which operation fails. Starts are compiled concurrently.
type fault struct {
	on    atomic.Bool
	count atomic.Int64
}

func (f *fault) change(p *program.Program) *program.Program {
	if !f.on.Load() || rand.IntN(4) != 0 {
		return p
	}
	return p.FailAt(int(f.count.Add(1))%len(p.Ops()), injected)
}

// netNamespaces is how many network namespaces the kernel has, or -1: the active objects of its slab cache, which
// root can read.
func netNamespaces() int {
	b, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "net_namespace" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return -1
}

// TestSoak starts containers of many kinds from two goroutines, with limits, faults, timeouts and ends of contexts, and
// compares what is there before and after. CAISSON_SOAK=20000 takes some minutes.
func TestSoak(t *testing.T) {
	n, alone := 300, false
	if s := os.Getenv(soakEnv); s != "" {
		var err error
		alone = true // no tests of other packages run beside it, which make network namespaces of their own
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", soakEnv, err)
		}
	} else if testing.Short() || raceEnabled || testutil.Slow() {
		n = 60
	}
	src := rootfs.Dir(testutil.Busybox(t))
	var f fault
	testHookProgram = f.change
	defer func() { testHookProgram = nil }()
	for i := range len(soakKinds) { // what each kind makes once
		if _, err := soakOne(src, i, false); err != nil {
			t.Fatal(err)
		}
	}
	before, nets := testutil.Take(), -1
	if alone {
		nets = netNamespaces()
	}
	f.on.Store(true)
	var next, failed, ended atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n) && !t.Failed(); i = next.Add(1) {
				ok, err := soakOne(src, int(i), true)
				if err != nil {
					t.Errorf("start %d, %s: %v", i, soakKinds[int(i)%len(soakKinds)].name, err)
				}
				if ok {
					ended.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	before.Check(t)
	var elsewhere []string
	if !testutil.Eventually(testTime, func() bool { elsewhere = testutil.ThreadsElsewhere(); return len(elsewhere) == 0 }) {
		t.Errorf("threads stay in other namespaces: %q", elsewhere)
	}
	// The kernel frees network namespaces later; a leak is one for each start, and stays.
	if nets >= 0 && !testutil.Eventually(testTime, func() bool { return netNamespaces() < nets+n/4+40 }) {
		t.Errorf("%d network namespaces before, %d after", nets, netNamespaces())
	}
	t.Logf("%d ran, %d failed as they had to", ended.Load(), failed.Load())
	if failed.Load() == 0 || ended.Load() < int64(n)/3 {
		t.Error("too few of one kind for the test to mean something")
	}
}

// soakKinds are the kinds of containers. reason is how they end, where no fault hits them.
var soakKinds = []struct {
	name   string
	opts   []Option
	reason Reason
	limits bool // only where there are cgroups
}{
	{"plain", []Option{WithCommand("/bin/true")}, ReasonExited, false},
	{"exit code", []Option{sh("exit 7")}, ReasonExited, false},
	{"limits", []Option{WithCommand("/bin/true"), WithMemory(32 << 20), WithPids(20)}, ReasonExited, true},
	{"timeout", []Option{WithCommand("/bin/sleep", "1000"), WithTimeout(5 * time.Millisecond)}, ReasonTimeout, false},
	{"output limit", []Option{sh("yes"), WithOutputLimit(1000)}, ReasonOutputLimit, false},
	{"background", []Option{sh("setsid sleep 1000 & sleep 1000 & exit 1")}, ReasonExited, false},
	{"terminal", []Option{sh("tty"), WithTerminal(10, 10)}, ReasonExited, false},
	{"out of memory", []Option{WithCommand("/bin/tail", "/dev/zero"), WithMemory(8 << 20)}, ReasonOOM, true},
	{"files", []Option{WithCommand("/bin/cat", "/etc/new"), WithFile("/etc/new", []byte("x"), 0o644), WithReadOnlyRoot(true)}, ReasonExited, false},
	{"not found", []Option{WithCommand("/bin/no-such-command")}, ReasonUnknown, false},
	{"canceled", []Option{WithCommand("/bin/sleep", "1000")}, ReasonCanceled, false},
	{"created and given up", []Option{WithCommand("/bin/true")}, ReasonUnknown, false},
}

// soakOne makes one container. It returns whether its command ran, and an error if it did not end as it had to.
func soakOne(src rootfs.Source, i int, faults bool) (ran bool, err error) {
	k := soakKinds[i%len(soakKinds)]
	if k.limits && !isRoot() {
		k = soakKinds[0]
	}
	c, err := New(append([]Option{WithRootfs(src), WithStdout(&buffer{})}, k.opts...)...)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	switch k.name {
	case "canceled":
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
		defer stop()
	case "created and given up":
		_, err = c.Create(ctx)
		return false, tolerated(err, faults)
	}
	err = c.Run(ctx)
	var exit *ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &exit) && exit.Result.Reason == k.reason:
		return true, nil
	case k.name == "not found" && errors.Is(err, ErrCommandNotFound), k.name == "canceled" && errors.Is(err, context.DeadlineExceeded):
		return false, nil
	case errors.As(err, &exit):
		return true, fmt.Errorf("%+v", exit.Result)
	}
	return false, tolerated(err, faults)
}

// tolerated passes over a fault that was injected.
func tolerated(err error, faults bool) error {
	if faults && errors.Is(err, unix.Errno(injected)) {
		return nil
	}
	return err
}
