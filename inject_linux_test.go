package caisson

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// injected is an errno that nothing in a start tolerates or answers.
const injected = unix.EL3RST

// ended is input that has ended. It keeps no state, so that many starts may share it.
type ended struct{}

func (ended) Read([]byte) (int, error) { return 0, io.EOF }

// injections are starts whose programs differ.
func injections(t *testing.T) map[string][]Option {
	dir := testutil.Busybox(t)
	file := script(t)
	m := map[string][]Option{
		"default":  {WithRootfs(rootfs.Dir(dir)), WithCommand("true")},
		"terminal": {WithRootfs(rootfs.Dir(dir)), WithTerminal(3, 4), WithCommand("/bin/true"), WithHostname("h"), WithDir("/tmp")},
		"much": {
			WithRootfs(rootfs.Dir(dir).ReadOnly()), WithCommand("/bin/true"), WithReadOnlyRoot(true), WithNoNewPrivileges(false),
			WithMount(rootfs.TmpfsMount("/var", 1<<20), rootfs.ReadOnlyBindMount("/etc", "/mnt")), WithExtraFiles(file), WithUmask(0o77),
			WithRlimit(unix.RLIMIT_CORE, 0, 0), WithSysctl("net.ipv4.ip_forward", "1"), WithOOMScoreAdj(900),
			WithStdin(ended{}), WithStdout(&buffer{}), WithStderr(&buffer{}),
		},
		"files and network": {
			WithRootfs(rootfs.Dir(dir)), WithCommand("/bin/true"), WithNetwork(&fakeNetwork{}), WithFile("/etc/x", []byte("x"), 0o600),
			WithFS("/srv", os.DirFS(dir+"/etc")),
		},
		"writable": {WithRootfs(rootfs.Dir(dir).Writable()), WithCommand("/bin/true"), WithoutSeccomp(), WithCapabilities()},
	}
	if err := os.Mkdir(dir+"/mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	if isRoot() {
		m["user"] = []Option{WithRootfs(rootfs.Dir(dir)), WithUser("web"), WithCommand("/bin/true")}
	}
	if isRoot() && idMaps(t) {
		m["id maps"] = []Option{WithRootfs(rootfs.Dir(dir)), WithCommand("/bin/true"), WithNamespaces(namespaces.Set{User: namespaces.New()}),
			WithNetwork(&fakeNetwork{})}
	}
	return m
}

// Each operation of the program of a start is made to fail in turn. Every failure has to be reported as that of its
// step, and to leave nothing behind.
func TestEveryStepFails(t *testing.T) {
	for name, opts := range injections(t) {
		t.Run(name, func(t *testing.T) { testEveryStepFails(t, opts, (*Container).Run) })
	}
	t.Run("created", func(t *testing.T) {
		opts := []Option{WithRootfs(rootfs.Dir(testutil.Busybox(t))), WithCommand("/bin/true"), WithStdout(&buffer{})}
		testEveryStepFails(t, opts, func(c *Container, ctx context.Context) error {
			if _, err := c.Create(ctx); err != nil {
				return err
			}
			return c.Run(ctx)
		})
	})
}

func testEveryStepFails(t *testing.T, opts []Option, run func(*Container, context.Context) error) {
	ctx := testContext(t)
	c := newContainer(t, opts...)
	if err := run(c, ctx); err != nil { // also makes what this kind of start makes once
		t.Fatalf("without a failure: %v", err)
	}
	before := testutil.Take()
	prog := &program.Program{}
	defer func() { testHookProgram = nil }()
	testHookProgram = func(p *program.Program) *program.Program { prog = p; return p }
	if err := run(c, ctx); err != nil {
		t.Fatal(err)
	}
	failed := map[program.Step]bool{}
	var passed []string
	for i := range prog.Ops() {
		var want program.Step
		testHookProgram = func(p *program.Program) *program.Program {
			want = p.Step(i)
			return p.FailAt(i, injected)
		}
		err := run(c, testContext(t)) // each has its own time
		var se *StepError
		switch {
		case err == nil: // an operation that this start jumps over
			passed = append(passed, want.String()+": "+prog.Render(i))
		case !errors.As(err, &se) || se.Step != want.Name || se.Object != want.Object:
			t.Errorf("operation %d, %s in step %q: error %v", i, prog.Render(i), want, err)
		case !errors.Is(err, injected):
			t.Errorf("operation %d, %s: %v is not the errno", i, prog.Render(i), err)
		default:
			failed[want] = true
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	before.Check(t)
	for _, s := range prog.Steps() {
		hasOps := slices.ContainsFunc(prog.Ops()[s.First:], func(program.Op) bool { return true })
		if hasOps && !failed[s] && !failed[program.Step{Name: s.Name, Object: s.Object, First: s.First}] {
			t.Errorf("no operation of step %q was made to fail", s)
		}
	}
	t.Logf("%d operations in %d steps; %d were jumped over:\n  %s", len(prog.Ops()), len(prog.Steps()), len(passed), strings.Join(passed, "\n  "))
}

// A start with too few file descriptors fails wherever they run out, and leaves nothing behind.
func TestStartWithFewDescriptors(t *testing.T) {
	opts := []Option{WithCommand("/bin/true"), WithStdin(ended{}), WithStdout(&buffer{}), WithStderr(&buffer{})}
	if isRoot() {
		opts = append(opts, WithMemory(64<<20))
	}
	c := newContainer(t, opts...)
	ctx := testContext(t)
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	highest := highestFD(t)
	failures := 0
	for room := uint64(0); ; room++ {
		limit := unix.Rlimit{Cur: uint64(highest) + room, Max: old.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		err := c.Run(ctx)
		if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); rerr != nil {
			t.Fatal(rerr)
		}
		if err == nil {
			break
		}
		failures++
		if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EBADF) {
			t.Errorf("room for %d: %v", room, err)
		}
		if room > 200 {
			t.Fatalf("fails with room for %d descriptors: %v", room, err)
		}
	}
	if failures < 5 {
		t.Errorf("only %d failures", failures)
	}
	t.Logf("needs %d descriptors", failures)
}

func highestFD(t *testing.T) int {
	t.Helper()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return int(f.Fd())
}

func TestContextEndedBeforeStart(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := newContainer(t, WithCommand("/bin/true"))
	if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if c.State() != StateNew {
		t.Errorf("state %v", c.State())
	}
	if err := c.Run(testContext(t)); err != nil {
		t.Errorf("a start that was never tried spoils the next: %v", err)
	}
}

// A context that ends while the stage waits at a sync point ends the start.
func TestContextEndsDuringStart(t *testing.T) {
	for name, opts := range map[string][]Option{
		"new":     {},
		"id maps": {WithNamespaces(namespaces.Set{User: namespaces.New()})},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "id maps" {
				needIDMaps(t)
				output(t, append(opts, WithCommand("/bin/true"))...)
			}
			noLeaks(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			first := 0
			n := &fakeNetwork{attach: func(ctx context.Context, _ *os.File, pid int) error {
				first = pid
				cancel()
				<-ctx.Done()
				if !testutil.Eventually(testTime, func() bool { return !testutil.Alive(pid) }) {
					t.Error("the stage is alive")
				}
				return ctx.Err()
			}}
			c := newContainer(t, append(opts, WithNetwork(n), WithCommand("/bin/true"))...)
			if _, err := c.Start(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if first == 0 || n.detached != 1 {
				t.Errorf("process %d, detached %d times", first, n.detached)
			}
		})
	}
}

// Contexts that end at any moment of a start: the start fails with the context's error, or it has succeeded and the
// command is ended.
func TestContextEndsAtAnyMoment(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/sleep", "1000"))
	for i := range 60 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*100*time.Microsecond)
		err := c.Run(ctx)
		cancel()
		var exit *ExitError
		switch {
		case errors.Is(err, context.DeadlineExceeded):
		case errors.As(err, &exit) && exit.Result.Reason == ReasonCanceled:
		default:
			t.Fatalf("after %d00 µs: %v", i, err)
		}
	}
}

// The context of Start bounds the call; WithContext ends the command.
func TestContextEndsAfterStart(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(context.Background())
	c, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithContext(ctx))
	cancel()
	r, err := p.Wait(testContext(t))
	if err != nil || r.Reason != ReasonCanceled || r.Signal != unix.SIGKILL {
		t.Errorf("%+v %v", r, err)
	}
	if r, err = c.Wait(testContext(t)); err != nil || r.Reason != ReasonCanceled {
		t.Errorf("%+v %v", r, err)
	}
}

// WithCancel replaces the kill; what it ends by itself has its own status.
func TestWithCancel(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(context.Background())
	var out buffer
	_, p := start(t, testContext(t), WithContext(ctx), sh("trap 'exit 12' TERM; echo ready; while :; do sleep 0.01; done"), WithStdout(&out),
		WithCancel(func(p *Process) error { return p.Signal(unix.SIGTERM) }))
	out.await(t, "ready")
	cancel()
	r, err := p.Wait(testContext(t))
	if err != nil || r.ExitCode != 12 || r.Reason != ReasonCanceled {
		t.Errorf("%+v %v", r, err)
	}
}

// A failing WithCancel falls back to the kill.
func TestWithCancelThatFails(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(context.Background())
	_, p := start(t, testContext(t), WithContext(ctx), WithCommand("/bin/sleep", "1000"), WithCancel(func(*Process) error { return errors.New("no") }))
	cancel()
	if r, err := p.Wait(testContext(t)); err != nil || r.Reason != ReasonCanceled || r.Signal != unix.SIGKILL {
		t.Errorf("%+v %v", r, err)
	}
}

// testEveryReleaseFails makes each operation of the program that a container of a pool is sent fail in turn.
func testEveryReleaseFails(t *testing.T, p *Pool, opts []Option) {
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	var rest *program.Program
	defer func() { testHookRest = nil }()
	testHookRest = func(q *program.Program) *program.Program { rest = q; return q }
	if _, err := p.Run(testContext(t), opts...); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for i := range rest.Ops() {
		var want program.Step
		testHookRest = func(q *program.Program) *program.Program {
			want = q.Step(i)
			return q.FailAt(i, injected)
		}
		_, err := p.Run(testContext(t), opts...)
		var se *StepError
		switch {
		case err == nil: // an operation that is jumped over
			passed++
		case !errors.As(err, &se) || se.Step != want.Name || se.Object != want.Object || !errors.Is(err, injected):
			t.Errorf("operation %d, %s in step %q: error %v", i, rest.Render(i), want, err)
		}
	}
	if passed*3 > len(rest.Ops()) {
		t.Errorf("%d of %d operations were jumped over", passed, len(rest.Ops()))
	}
}
