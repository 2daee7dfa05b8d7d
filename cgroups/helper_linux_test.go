package cgroups

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// The test binary runs itself as the process to be limited: CGROUPS_TEST_ACT says what to do, once a line comes in.
const actVar = "CGROUPS_TEST_ACT"

func TestMain(m *testing.M) {
	if act := os.Getenv(actVar); act != "" {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		helper(act)
		os.Exit(0)
	}
	before := countFDs()
	code := m.Run()
	if m, err := Default(); err == nil {
		_ = m.Close() // its remembered parents are no leak
	}
	if left := leftovers(); len(left) > 0 {
		fmt.Println("FAIL: groups left behind:", left)
		code = 1
	}
	after := 0
	testutil.Eventually(patience, func() bool { after = countFDs(); return after <= before+1 }) // a look at what was lent may be under way
	if after > before+1 {                                                                       // the runtime's poller is made on the way
		fmt.Println("FAIL: descriptors before", before, "after", after)
		code = 1
	}
	os.Exit(code)
}

func countFDs() int {
	n := 0
	for fd := range 1024 {
		target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && !strings.HasPrefix(target, "anon_inode:[event") && !strings.Contains(target, "/caisson/journal") { // the poller and the journal stay
			n++
		}
	}
	return n
}

func leftovers() (left []string) {
	m, err := NewManager()
	if err != nil {
		return nil
	}
	for _, h := range m.Layout().Hierarchies {
		_ = filepath.WalkDir(h.Mountpoint, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), prefix()+"-") {
				left = append(left, p)
			}
			return nil
		})
	}
	return left
}

// prefix tells the groups of this test run from those of others.
func prefix() string { return "caisson-t" + strconv.Itoa(os.Getpid()) }

// patience is how long a test waits for what is certain to happen: so long that it never decides on a busy machine.
var patience = testutil.Time(2 * time.Minute)

// spun gives a loop that burns CPU time something to do.
var spun int

func helper(act string) {
	switch act {
	case "hog":
		var keep [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			keep = append(keep, b)
			_ = keep
		}
	case "work": // in memory of its own, charged where it is touched
		held := make([]byte, 8<<20)
		for i := 0; ; i = (i + os.Getpagesize()) % len(held) {
			held[i]++
		}
	case "spin":
		for n := 0; ; n++ {
			spun = n
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "forks":
		forkUntilRefused()
	case "storm":
		for {
			_, _, _ = syscall.RawSyscall(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0)
		}
	case "devices":
		tryDevices()
	case "container":
		container()
	case "lend":
		lend()
	case "delegated":
		delegated()
	case "scoped", "outlived":
		makeScope(act == "outlived")
	case "pool":
		keepPool()
	case "cache":
		fillCache()
	}
}

func forkUntilRefused() {
	for i := range 200 {
		if err := exec.Command("sleep", "1000").Start(); err != nil {
			fmt.Println("refused after", i, err)
			os.Exit(7)
		}
	}
}

// A proc is a helper process inside a group.
type proc struct {
	*exec.Cmd
	in  io.WriteCloser
	out text
}

// start puts a helper into the group, which waits to be let go.
func start(t *testing.T, g *Group, act string) *proc {
	t.Helper()
	p := &proc{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(os.Environ(), actVar+"="+act)
	p.Stdout, p.Stderr = &p.out, &p.out
	p.WaitDelay = 10 * time.Second
	j, err := g.JoinFDs()
	if err != nil {
		t.Fatal(err)
	}
	if j.CloneInto >= 0 {
		p.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: j.CloneInto}
	}
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	if len(j.Tasks) > 0 {
		if err := g.AddProc(context.Background(), p.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *proc) run() { _, _ = io.WriteString(p.in, "\n") }

// newGroup makes a group that is killed and deleted at the end.
func newGroup(t *testing.T, r Resources, c Config) *Group {
	t.Helper()
	needRoot(t)
	n := name(t)
	if c.Parent != "" { // beside another one
		n += "-2"
	}
	g, err := New(context.Background(), n, r, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { destroy(t, g) })
	return g
}

func destroy(t *testing.T, g *Group) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.Kill(ctx); err != nil && err != ErrClosed {
		t.Error(err)
	}
	if err := g.Delete(ctx); err != nil && err != ErrClosed {
		t.Error(err)
	}
}

func name(t *testing.T) string {
	return prefix() + "-" + strings.NewReplacer("/", "-", "#", "").Replace(t.Name())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

func mode(t *testing.T) Mode {
	t.Helper()
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return m.Mode()
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func cat(t *testing.T, g *Group, c Controllers, file string) string {
	t.Helper()
	text, err := os.ReadFile(g.node(c).path + "/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// text collects what a process writes, and can be read meanwhile.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
