package caisson

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// roles are what this test binary does when a test runs it again.
var roles = map[string]func(){}

func TestMain(m *testing.M) { testutil.Main(m, roles) }

// testTime bounds one test's containers: so long that it never decides on a slow machine.
var testTime = testutil.Time(2 * time.Minute)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

// warm makes what a host program has once and keeps: the keeper, the empty mount namespaces, the id maps, probes, and
// for each set of controllers the directory below which groups are made.
var warm = sync.OnceFunc(func() {
	for _, limit := range []Option{Options(), WithMemory(64 << 20), WithCPUs(1), Options(WithMemory(64<<20), WithCPUs(1)), WithCPUTime(time.Minute), WithRootfs(rootfs.Host())} {
		c, err := New(WithRootfs(rootfs.Dir("/")), WithCommand("/bin/true"), limit)
		if err == nil {
			_ = c.Run(context.Background())
			_ = c.Close()
		}
	}
	// Where systemd makes scopes, that of what outlives the program.
	if g, err := cgroups.New(context.Background(), "caisson-warm-"+strconv.Itoa(os.Getpid()), cgroups.Resources{}, cgroups.Config{Outlive: true}); err == nil {
		_ = g.Delete(context.Background())
	}
})

// noLeaks fails the test if it leaves something behind.
func noLeaks(t testing.TB) {
	t.Helper()
	warm()
	testutil.NoLeaks(t)
}

// newContainer makes a container on a small root filesystem, unless opts name another, and closes it with the test.
func newContainer(t testing.TB, opts ...Option) *Container {
	t.Helper()
	c, err := New(append([]Option{WithRootfs(rootfs.Dir(testutil.Busybox(t)))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	needIDMapsFor(t, c.spec)
	return c
}

// sh is the option for a shell script.
func sh(script string) Option { return WithCommand("/bin/sh", "-c", script) }

// output runs a container whose command has to succeed and returns what it wrote, without the last line break.
func output(t testing.TB, opts ...Option) string {
	t.Helper()
	c := newContainer(t, opts...)
	out, err := c.CombinedOutput(testContext(t))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// result runs a container and returns how it ended.
func result(t testing.TB, opts ...Option) *Result {
	t.Helper()
	c := newContainer(t, opts...)
	err := c.Run(testContext(t))
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r, err := c.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start starts a container's command.
func start(t testing.TB, ctx context.Context, opts ...Option) (*Container, *Process) {
	t.Helper()
	c := newContainer(t, opts...)
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

// buffer is a bytes.Buffer for many goroutines, with a way to wait for what is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await waits until text has been written.
func (b *buffer) await(t testing.TB, text string) {
	t.Helper()
	if !testutil.Eventually(testTime, func() bool { return strings.Contains(b.String(), text) }) {
		t.Fatalf("%q was not written; only %q", text, b.String())
	}
}

// needCgroup skips the test where no cgroup with the given controllers can be made.
func needCgroup(t testing.TB, want cgroups.Controllers) {
	t.Helper()
	m, err := cgroups.Default()
	if err != nil {
		t.Skipf("no cgroups: %v", err)
	}
	for _, a := range m.Check() {
		if want.Has(a.Controller) && !a.Usable {
			if os.Getenv(delegatedEnv) == "1" {
				t.Fatalf("a delegated cgroup lacks controller %v: %v", a.Controller, a.Reason)
			}
			t.Skipf("cgroup controller %v cannot be used: %v", a.Controller, a.Reason)
		}
	}
}

// needIDMaps skips the test where the root filesystems of the tests cannot be id-mapped.
func needIDMaps(t testing.TB) {
	t.Helper()
	testutil.NeedRoot(t)
	if !idMaps(t) {
		t.Skip("this kernel cannot id-map the filesystem of " + os.TempDir() + " (tmpfs: Linux 6.3)")
	}
}

// needIDMapsFor does that if the recipe is root's, has a user namespace and takes its root filesystem from a directory.
func needIDMapsFor(t testing.TB, s *spec) {
	t.Helper()
	_, dir := s.rootfs.(rootfs.DirSource)
	if user := s.namespaces.User; dir && isRoot() && (s.idmaps != nil || user.IsNew() && !user.IsDefault()) {
		needIDMaps(t)
	}
}

// idMaps reports whether the filesystem of temporary files can be id-mapped, as the kernel's release and mount(2) tell.
func idMaps(t testing.TB) bool { return testutil.IDMaps(t) }

func isRoot() bool { return os.Getuid() == 0 }

// dirOf is a small root filesystem.
func dirOf(t testing.TB) rootfs.Source { return rootfs.Dir(testutil.Busybox(t)) }

func uitoa(n uint64) string { return strconv.FormatUint(n, 10) }
