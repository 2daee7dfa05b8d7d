package caisson

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// stateDir is a state directory that goes with the test, with whatever is in it.
func stateDir(t *testing.T) StateDir {
	t.Helper()
	d := StateDir(filepath.Join(t.TempDir(), "state"))
	t.Cleanup(func() {
		l, _ := d.List(context.Background())
		for _, i := range l {
			if c, err := d.Load(context.Background(), i.ID); err == nil {
				if err := c.Remove(context.Background()); err != nil {
					t.Errorf("remove %s: %v", i.ID, err)
				}
			}
		}
		if _, err := d.Recover(context.Background()); err != nil {
			t.Errorf("recover: %v", err)
		}
		if l, err := os.ReadDir(string(d)); err == nil && len(l) > 0 {
			t.Errorf("left in the state directory: %v", l)
		}
	})
	return d
}

// detached makes a container that outlives its program.
func detached(t *testing.T, d StateDir, id string, opts ...Option) *Container {
	t.Helper()
	return newContainer(t, append([]Option{WithDetached(true), WithID(id), WithStateDir(string(d))}, opts...)...)
}

func load(t *testing.T, d StateDir, id string) *Container {
	t.Helper()
	c, err := d.Load(testContext(t), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDetachedLivesOnAfterClose(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c := detached(t, d, "web", sh("read x; exit 7"), WithStdin(in), WithLabels(map[string]string{"app": "shop"}))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	pid := p.Pid()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait after it was let go of: %v", err)
	}
	if !testutil.Alive(pid) {
		t.Fatal("Close has ended it")
	}
	l, err := d.List(testContext(t))
	if err != nil || len(l) != 1 || l[0].State != StateRunning || l[0].Pid != pid || l[0].Labels["app"] != "shop" || l[0].Started.IsZero() {
		t.Fatalf("%+v, %v", l, err)
	}
	c2 := load(t, d, "web")
	if c2.State() != StateRunning || c2.Process().Pid() != pid {
		t.Errorf("%v, %d", c2.State(), c2.Process().Pid())
	}
	if len(c2.Isolation()) == 0 {
		t.Error("no isolation")
	}
	root, err := c2.Root()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile("/etc/passwd", 4096); err != nil || !strings.Contains(string(b), "web") {
		t.Errorf("%q, %v", b, err)
	}
	root.Close()
	in.WriteString("x\n")
	r, err := c2.Wait(testContext(t))
	if err != nil || r.ExitCode != 7 || r.Reason != ReasonExited || r.Started.IsZero() || r.Wall <= 0 || r.Wall > time.Hour {
		t.Errorf("%+v, %v", r, err)
	}
	if c2.State() != StateStopped {
		t.Error(c2.State())
	}
	again := load(t, d, "web")
	if r2, err := again.Wait(testContext(t)); err != nil || fmt.Sprint(r2) != fmt.Sprint(r) || r2.ExitCode != 7 {
		t.Errorf("%+v, %v", r2, err)
	}
	if _, err := again.Start(testContext(t)); !errors.Is(err, ErrState) {
		t.Errorf("start of a loaded one that has ended: %v", err)
	}
	if err := again.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(testContext(t), "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	c2.Close()
}

// A loaded container is supervised before anybody can say where its warnings go.
func TestLoadedLogTo(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	if _, err := detached(t, d, "web", WithCommand("/bin/sleep", "1000")).Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c := load(t, d, "web")
	if err := c.Process().Signal(syscall.SIGKILL); err != nil { // what sees the end may be about to tell of it
		t.Fatal(err)
	}
	var log bytes.Buffer
	c.LogTo(slog.New(slog.DiscardHandler))
	c.LogTo(slog.New(slog.NewTextHandler(&log, nil)))
	if _, err := c.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.lastRun().warn("look", ErrState)
	if !strings.Contains(log.String(), "caisson: look") {
		t.Error(log.String())
	}
}

func TestDetachedNames(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "one", WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c2 := detached(t, d, "one", WithCommand("/bin/sleep", "1000"))
	if _, err := c2.Start(testContext(t)); !errors.Is(err, ErrExists) {
		t.Errorf("second: %v", err)
	}
	if err := c.Stop(testContext(t), 0); err != nil {
		t.Fatal(err)
	}
	r, err := c.Wait(testContext(t))
	if err != nil || r.Reason != ReasonStopped || r.Signal != unix.SIGKILL {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := c2.Start(testContext(t)); !errors.Is(err, ErrExists) {
		t.Errorf("of a stopped one: %v", err)
	}
	if _, err := c.Start(testContext(t)); err != nil { // the same container again
		t.Fatal(err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c2.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c2.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// A start that fails leaves neither record nor process.
func TestDetachedStartFails(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	for name, opts := range map[string][]Option{
		"no command":   {WithCommand("/no/such")},
		"no directory": {WithCommand("/bin/true"), WithDir("/no/such")},
	} {
		c := detached(t, d, "x", opts...)
		if _, err := c.Start(testContext(t)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if l, err := d.List(testContext(t)); len(l) != 0 || err != nil {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := detached(t, d, "x", WithCommand("/bin/true"))
	if _, err := c.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDetachedCreateAndStart(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c := detached(t, d, "web", sh("echo ran as $$; exit 3"), WithStdout(out))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err := d.List(testContext(t)); err != nil || len(l) != 1 || l[0].State != StateCreated || !l[0].Started.IsZero() {
		t.Fatalf("%+v, %v", l, err)
	}
	c2 := load(t, d, "web")
	if c2.State() != StateCreated {
		t.Fatal(c2.State())
	}
	if b, _ := os.ReadFile(out.Name()); len(b) > 0 {
		t.Fatalf("the command ran: %q", b)
	}
	p, err := c2.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if b, _ := os.ReadFile(out.Name()); string(b) != "ran as 1\n" {
		t.Errorf("%q", b)
	}
	if err := c2.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c3 := detached(t, d, "bad", WithCommand("/no/such/command"))
	if _, err := c3.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c3.Close()
	c4 := load(t, d, "bad")
	if _, err := c4.Start(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Errorf("%v", err)
	}
	if c4.State() != StateStopped {
		t.Error(c4.State())
	}
	if err := c4.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c5 := detached(t, d, "given-up", WithCommand("/bin/true"))
	if _, err := c5.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c5.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func TestDetachedRefusesByName(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, opt := range map[string]Option{
		"WithDetached": Options(), "WithStdin": WithStdin(strings.NewReader("x")), "WithStdout": WithStdout(io.Discard), "WithStderr": WithStderr(io.Discard),
		"WithTerminal": WithTerminal(1, 1), "WithTimeout": WithTimeout(time.Second), "WithCPUTime": WithCPUTime(time.Second),
		"WithOutputLimit": WithOutputLimit(1), "WithContext": WithContext(ctx), "WithCancel": WithCancel(func(*Process) error { return nil }),
		"WithTrace": WithTrace(&Trace{}), "WithStateDir": WithStateDir("a/b"), "WithLabels": WithLabels(map[string]string{"": "x"}),
	} {
		opts := []Option{WithRootfs(rootfs.Dir("/")), WithCommand("true"), WithDetached(true), opt}
		if name != "WithDetached" {
			opts = append(opts, WithID("x"))
		}
		_, err := New(opts...)
		var oe *OptionError
		if !errors.Is(err, ErrInvalid) || !errors.As(err, &oe) || oe.Option != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := New(WithRootfs(rootfs.Dir("/")), WithCommand("true"), WithDetached(true), WithID("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Output(ctx); !errors.Is(err, ErrInvalid) {
		t.Errorf("Output: %v", err)
	}
	if _, err := c.StdoutPipe(); !errors.Is(err, ErrInvalid) {
		t.Errorf("StdoutPipe: %v", err)
	}
}

// Each operation of the program of a detached start is made to fail in turn, those of the keeper included. A start that
// fails leaves nothing; one that succeeds can be removed.
func TestEveryStepOfADetachedStartFails(t *testing.T) {
	d := stateDir(t)
	c := detached(t, d, "x", WithCommand("/bin/true"))
	ctx := testContext(t)
	prog := &program.Program{}
	defer func() { testHookProgram = nil }()
	testHookProgram = func(p *program.Program) *program.Program { prog = p; return p }
	once := func() error {
		if _, err := c.Start(ctx); err != nil {
			return err
		}
		_, err := c.Wait(ctx)
		return err
	}
	if err := once(); err != nil {
		t.Fatal(err)
	}
	before := testutil.Take()
	failed, unknown := 0, 0
	for i := range prog.Ops() {
		testHookProgram = func(p *program.Program) *program.Program { return p.FailAt(i, injected) }
		err := once()
		var se *StepError
		switch {
		case err == nil:
		case errors.Is(err, ErrStatusUnknown): // the keeper failed
			unknown++
		case errors.As(err, &se) && errors.Is(err, injected), errors.Is(err, errEndedEarly):
			if errors.Is(err, errEndedEarly) { // the keeper failed at once
				unknown++
			} else {
				failed++
			}
			if l, err := d.List(ctx); len(l) > 0 || err != nil {
				t.Fatalf("operation %d, %s: left %+v, %v", i, prog.Render(i), l, err)
			}
		default:
			t.Errorf("operation %d, %s: %v", i, prog.Render(i), err)
		}
	}
	testHookProgram = nil
	rel, err := linux.KernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	if failed < 50 || unknown < 2 && !rel.AtLeast(6, 15) { // which tells the status without the keeper too
		t.Errorf("%d starts failed, of %d the status is unknown", failed, unknown)
	}
	if err := once(); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	before.Check(t)
}
