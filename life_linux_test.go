package caisson

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// testDir returns a directory to be used as root filesystem: the one in CAISSON_TEST_ROOTFS, or the host's own root.
func testDir() rootfs.Source {
	if dir := os.Getenv("CAISSON_TEST_ROOTFS"); dir != "" {
		return rootfs.Dir(dir)
	}
	return rootfs.Host()
}

func hostContainer(t *testing.T, opts ...Option) *Container {
	t.Helper()
	c, err := New(append([]Option{WithRootfs(testDir())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	c := hostContainer(t, WithCommand("sh", "-c", `stty size; tty; read x; echo "got $x"; test -t 2 && echo yes`),
		WithTerminal(31, 97), WithStdin(strings.NewReader("hello\n")), WithStdout(&out))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"31 97", "/dev/pts/0", "got hello", "yes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, &out)
		}
	}
}

func TestResize(t *testing.T) {
	pr, pw := io.Pipe()
	var out bytes.Buffer
	c := hostContainer(t, WithCommand("sh", "-c", `read x; stty size`), WithTerminal(10, 20), WithStdin(pr), WithStdout(&out))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Resize(44, 55); err != nil {
		t.Fatal(err)
	}
	pw.Write([]byte("\n"))
	if _, err := p.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if !strings.Contains(out.String(), "44 55") {
		t.Fatalf("output %q", &out)
	}
}

func TestCreateWaitsForStart(t *testing.T) {
	var out buffer
	c := hostContainer(t, WithCommand("echo", "ran"), WithStdout(&out))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := c.State(); got != StateCreated {
		t.Fatalf("state %v", got)
	}
	root, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := root.Stat("/bin/sh"); err != nil {
		t.Fatalf("the root of a created container cannot be seen: %v", err)
	}
	if out.String() != "" {
		t.Fatalf("the command ran before Start: %q", out.String())
	}
	if _, err := c.Create(testContext(t)); !errors.Is(err, ErrState) {
		t.Fatalf("second Create: %v, want ErrState", err)
	}
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || !r.Success() {
		t.Fatal(r, err)
	}
	if out.String() != "ran\n" {
		t.Fatalf("output %q", out.String())
	}
}

func TestCloseGivesUpACreatedContainer(t *testing.T) {
	c := hostContainer(t, WithCommand("echo", "ran"))
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.Reason != ReasonStopped {
		t.Fatalf("%v, %v; want stopped", r, err)
	}
}

func TestCreateThenCommandNotFound(t *testing.T) {
	c := hostContainer(t, WithCommand("/no/such/command"))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Fatalf("%v, want ErrCommandNotFound", err)
	}
}

func TestPrivilegedUserNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: id-mapped mounts cannot be made otherwise")
	}
	dir := os.Getenv("CAISSON_TEST_ROOTFS")
	if dir == "" {
		t.Skip("needs a root filesystem in CAISSON_TEST_ROOTFS")
	}
	c, err := New(WithRootfs(rootfs.Dir(dir)), WithNamespaces(namespaces.Set{User: namespaces.New()}),
		WithCommand("sh", "-c", `cat /proc/self/uid_map; stat -c %u /bin/sh; echo x > /new && stat -c %u /new`))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, err := c.Output(testContext(t))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 3 || strings.Fields(lines[0])[1] == "0" || lines[1] != "0" || lines[2] != "0" {
		t.Fatalf("uid map and owners of an old and a new file: %q", lines)
	}
}

func TestRootAfterTheEnd(t *testing.T) {
	c := hostContainer(t, WithCommand("sh", "-c", "echo result > /tmp/result"))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	root, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	b, err := root.ReadFile("/tmp/result", 1<<10)
	if err != nil || string(b) != "result\n" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestTrace(t *testing.T) {
	var begun, done []string
	began := time.Now()
	c := hostContainer(t, WithCommand("true"), WithTrace(&Trace{
		StepStart: func(i StepInfo) { begun = append(begun, i.Step+" "+i.Object) },
		StepDone: func(i StepInfo) {
			done = append(done, i.Step+" "+i.Object)
			if i.Took < 0 || i.Took > time.Since(began) {
				t.Errorf("%v", i)
			}
		},
	}))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if len(begun) < 20 || !slices.Equal(begun, done) || begun[len(begun)-1] != "execute true" {
		t.Fatalf("begun %q\ndone %q", begun, done)
	}
}

func TestTraceEndsAtTheFailedStep(t *testing.T) {
	var last string
	c := hostContainer(t, WithCommand("true"), WithDir("/no/such/dir"), WithTrace(&Trace{
		StepStart: func(i StepInfo) { last = i.Step + " " + i.Object },
	}))
	if err := c.Run(testContext(t)); !errors.Is(err, os.ErrNotExist) || last != "change to /no/such/dir" {
		t.Fatalf("%v, last step %q", err, last)
	}
}

func TestAllPartsOfTheRootAfterTheEnd(t *testing.T) {
	c, err := New(WithRootfs(rootfs.Host()), WithCommand("sh", "-c", "echo result > /etc/result"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	root, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if b, err := root.ReadFile("/etc/result", 1<<10); err != nil || string(b) != "result\n" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := root.Stat("/usr/bin/env"); err != nil {
		t.Error(err)
	}
}

// The collector, which closes forgotten files, is off: what is opened to look into a root is closed at once.
func TestRootLeavesNoFileToTheCollector(t *testing.T) {
	warm()
	old := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(old) }) // after the files have been counted
	testutil.NoLeaks(t)
	c := hostContainer(t, WithCommand("true"))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	root, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	root.Close()
	failed := hostContainer(t, WithCommand("no-such-command"))
	if err := failed.Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Fatal(err)
	}
}
