package caisson

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/rootfs"
)

// visitCalls are calls that enter a running container. Each has what is to be done before it, and what takes its success back.
func visitCalls(t *testing.T) map[string]visitCall {
	dir, out := shared(t), filepath.Join(t.TempDir(), "out")
	gone := func(c *Container, ctx context.Context, target string) {
		if err := c.Unmount(ctx, target, UnmountLazy); err != nil && !errors.Is(err, ErrNotMounted) {
			t.Error(err)
		}
	}
	return map[string]visitCall{
		"mount": {
			do: func(c *Container, ctx context.Context) error {
				return c.Mount(ctx, rootfs.TmpfsMount("/mnt", 1<<20), rootfs.ReadOnlyBindMount(dir, "/srv"))
			},
			undo: func(c *Container, ctx context.Context) { gone(c, ctx, "/srv"); gone(c, ctx, "/mnt") },
		},
		"unmount": {
			before: func(c *Container, ctx context.Context) error {
				gone(c, ctx, "/mnt")
				return c.Mount(ctx, rootfs.TmpfsMount("/mnt", 1<<20))
			},
			do:   func(c *Container, ctx context.Context) error { return c.Unmount(ctx, "/mnt") },
			undo: func(c *Container, ctx context.Context) { gone(c, ctx, "/mnt") },
			may:  true,
		},
		"copy in": {
			do: func(c *Container, ctx context.Context) error {
				return c.CopyFS(ctx, fstest.MapFS{"copied": {Data: []byte("x"), Mode: 0o640}}, "/tmp")
			},
			undo: func(c *Container, ctx context.Context) { execs(t, c, "rm -f /tmp/copied") },
			each: true,
		},
		"copy out": {
			do:   func(c *Container, ctx context.Context) error { return c.CopyOut(ctx, "/etc/passwd", out) },
			undo: func(*Container, context.Context) { _ = os.Remove(out) },
			each: true,
		},
		"dial": {
			do: func(c *Container, ctx context.Context) error {
				return closed(c.Dial(ctx, "unix", "/tmp/socket"))
			},
		},
		"listen": {do: func(c *Container, ctx context.Context) error { return closed(c.Listen(ctx, "tcp", "127.0.0.1:0")) }},
		"listen at a path": {
			do: func(c *Container, ctx context.Context) error {
				return closed(c.Listen(ctx, "unix", "/tmp/other"))
			},
			undo: func(c *Container, ctx context.Context) { execs(t, c, "rm -f /tmp/other") },
			may:  true,
		},
		"packets": {do: func(c *Container, ctx context.Context) error {
			return closed(c.ListenPacket(ctx, "udp", "127.0.0.1:0"))
		}},
	}
}

type visitCall struct {
	before, do func(*Container, context.Context) error
	undo       func(*Container, context.Context)
	each       bool // a process that failed is followed by another, which takes back what was begun: each fails, but where they serve
	may        bool // what is done by the last call before the failure may stay
}

func closed[T interface{ Close() error }](x T, err error) error {
	if err == nil {
		err = x.Close()
	}
	return err
}

// Each operation of the process that enters a container is made to fail in turn. Every failure has to be reported as that
// of its step, and to leave nothing behind, neither inside nor here.
func TestEveryStepOfAVisitFails(t *testing.T) {
	for name, opts := range kindsOfContainer() {
		if name == "read-only" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			calls := visitCalls(t)
			warmed(t, opts...)
			c := runs(t, opts...)
			l, err := c.Listen(testContext(t), "unix", "/tmp/socket")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go acceptAll(l)
			for name, call := range calls {
				t.Run(name, func(t *testing.T) { testEveryVisitFails(t, c, call) })
			}
		})
	}
}

func acceptAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// look is insideNow, where nothing may be left.
func (call visitCall) look(t *testing.T, c *Container) string {
	t.Helper()
	if call.may {
		return ""
	}
	return insideNow(t, c)
}

// insideNow is what a visit could have left in a container.
func insideNow(t *testing.T, c *Container) string {
	t.Helper()
	out, _ := execs(t, c, "grep -E ' /(mnt|srv) ' /proc/self/mountinfo; find /tmp | sort")
	return out
}

func testEveryVisitFails(t *testing.T, c *Container, call visitCall) {
	ctx := testContext(t)
	prepare := func() {
		testHookVisit = nil
		if call.before != nil {
			if err := call.before(c, ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	undo := func() {
		if testHookVisit = nil; call.undo != nil {
			call.undo(c, ctx)
		}
	}
	defer func() { testHookVisit = nil }()
	var prog *program.Program
	prepare()
	before := insideNow(t, c)
	testHookVisit = func(p *program.Program) *program.Program { prog = p; return p }
	if err := call.do(c, ctx); err != nil {
		t.Fatalf("without a failure: %v", err)
	}
	undo()
	if prog == nil { // this program copies by itself where paths cannot be resolved by openat2
		return
	}
	var passed []string
	for i := range prog.Ops() {
		prepare()
		want := prog.Step(i)
		testHookVisit = func(p *program.Program) *program.Program {
			if !call.each || want.Name == deputyStep {
				testHookVisit = nil // what comes after a failure is to succeed
			}
			return p.FailAt(i, injected)
		}
		err := call.do(c, ctx)
		testHookVisit = nil
		var se *StepError
		var ne *net.OpError
		switch {
		case err == nil: // an operation that is jumped over
			if undo(); want.Name != deputyStep { // which has calls that these copies do not need
				passed = append(passed, want.String()+": "+prog.Render(i))
			}
			continue
		case !errors.Is(err, injected):
			t.Errorf("operation %d, %s in step %q: %v is not the errno", i, prog.Render(i), want, err)
		case want.Name == deputyStep, errors.As(err, &ne) && strings.Contains(err.Error(), want.Object): // named as a call
		case !errors.As(err, &se) || se.Step != want.Name || se.Object != want.Object:
			t.Errorf("operation %d, %s in step %q: error %v", i, prog.Render(i), want, err)
		}
		if after := call.look(t, c); after != "" && after != before {
			t.Errorf("operation %d, %s in step %q left %q, was %q", i, prog.Render(i), want, after, before)
		}
		undo()
	}
	if len(passed)*2 > len(prog.Ops()) {
		t.Errorf("%d of %d operations were jumped over:\n%s", len(passed), len(prog.Ops()), strings.Join(passed, "\n"))
	}
	prepare()
	if err := call.do(c, ctx); err != nil {
		t.Errorf("after all failures: %v", err)
	}
	undo()
}
