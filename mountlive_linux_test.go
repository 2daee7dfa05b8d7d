package caisson

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// shared is a directory of the host that containers can reach, with a file in it.
func shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755)
	}
	if err := os.WriteFile(dir+"/file", []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kindsOfContainer are containers with and without a user namespace of their own, where both can be had.
func kindsOfContainer() map[string][]Option {
	return map[string][]Option{"default": nil, "userns": {WithNamespace(namespaces.User, namespaces.New())}, "read-only": {WithReadOnlyRoot(true)}}
}

// warmed is noLeaks, after one start of a container of the kind made what the program keeps.
func warmed(t *testing.T, opts ...Option) {
	t.Helper()
	if err := newContainer(t, append([]Option{WithCommand("true")}, opts...)...).Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
}

func TestMountLive(t *testing.T) {
	dir := shared(t)
	for name, opts := range kindsOfContainer() {
		t.Run(name, func(t *testing.T) {
			warmed(t, opts...)
			c := runs(t, opts...)
			ctx := testContext(t)
			err := c.Mount(ctx, rootfs.TmpfsMount("/mnt/t", 1<<20))
			if name == "read-only" {
				if !errors.Is(err, unix.EROFS) {
					t.Fatalf("a directory was made in a read-only root: %v", err)
				}
				if err := c.Mount(ctx, rootfs.TmpfsMount("/var", 1<<20)); err != nil {
					t.Fatal(err)
				}
				if out, _ := execs(t, c, "touch /var/x && stat -f -c %T /var"); out != "tmpfs\n" {
					t.Errorf("%q", out)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Mount(ctx, rootfs.BindMount(dir, "/mnt/w"), rootfs.ReadOnlyBindMount(dir+"/file", "/mnt/t/deep/f"),
				rootfs.ReadOnlyBindMount(dir, "/mnt/r")); err != nil {
				t.Fatal(err)
			}
			out, _ := execs(t, c, `cat /mnt/w/file /mnt/t/deep/f /mnt/r/file; echo inside >/mnt/w/made; cat /mnt/r/made
				touch /mnt/r/x 2>&1 | grep -o Read-only; (echo > /mnt/t/deep/f) 2>&1 | grep -o Read-only; grep -c ' /mnt/' /proc/self/mountinfo`)
			if out != "of the host\nof the host\nof the host\ninside\nRead-only\nRead-only\n4\n" {
				t.Errorf("%q", out)
			}
			if b, err := os.ReadFile(dir + "/made"); err != nil || string(b) != "inside\n" {
				t.Errorf("%q, %v", b, err)
			}
			if err := os.Remove(dir + "/made"); err != nil {
				t.Error(err)
			}
			if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), "/mnt/t ") {
				t.Error("mounted on the host")
			}
			// Something is mounted below it.
			if err := c.Unmount(ctx, "/mnt/t"); !errors.Is(err, ErrBusy) || !errors.Is(err, unix.EBUSY) {
				t.Errorf("%v", err)
			}
			for _, target := range []string{"/mnt/t/deep/f", "/mnt/t", "/mnt/w", "/mnt/r"} {
				if err := c.Unmount(ctx, target); err != nil {
					t.Error(err)
				}
				if err := c.Unmount(ctx, target); !errors.Is(err, ErrNotMounted) {
					t.Errorf("twice: %v", err)
				}
			}
			if out, _ := execs(t, c, "grep -c ' /mnt/' /proc/self/mountinfo"); out != "0\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

func TestMountLiveOverlay(t *testing.T) {
	lower, over := shared(t), shared(t)
	for _, d := range []string{over + "/u", over + "/w"} {
		if err := os.Mkdir(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, opts := range map[string][]Option{"default": nil, "userns": {WithNamespace(namespaces.User, namespaces.New())}} {
		t.Run(name, func(t *testing.T) {
			warmed(t, opts...)
			c := runs(t, opts...)
			ctx := testContext(t)
			if err := c.Mount(ctx, rootfs.OverlayMount("/mnt/ro", "", "", lower)); err != nil {
				t.Fatal(err)
			}
			if out, _ := execs(t, c, "cat /mnt/ro/file; touch /mnt/ro/x 2>&1 | grep -o Read-only"); out != "of the host\nRead-only\n" {
				t.Errorf("%q", out)
			}
			targets := []string{"/mnt/ro", "/mnt/rw"}
			err := c.Mount(ctx, rootfs.OverlayMount("/mnt/rw", over+"/u", over+"/w", lower))
			if name == "userns" && isRoot() { // the upper layer belongs to somebody who is not mapped
				if !errors.Is(err, unix.EROFS) {
					t.Error(err)
				}
				targets = targets[:1]
			} else if err != nil {
				t.Fatal(err)
			} else if out, _ := execs(t, c, "(echo >> /mnt/rw/new) 2>/dev/null && cat /mnt/rw/file"); out != "of the host\n" {
				t.Errorf("%q", out)
			}
			for _, target := range targets {
				if err := c.Unmount(ctx, target); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What belongs to a container's ids is its own inside, where the mount is id-mapped.
func TestMountLiveIDMapped(t *testing.T) {
	if !isRoot() { // an id mapping is refused
		m := rootfs.BindMount(shared(t), "/mnt")
		m.IDMap = rootfs.MappedAll
		if err := runs(t).Mount(testContext(t), m); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v", err)
		}
		return
	}
	needIDMaps(t)
	warmed(t, WithNamespace(namespaces.User, namespaces.New()))
	dir := shared(t)
	c := runs(t, WithNamespace(namespaces.User, namespaces.New()))
	plain, mapped := rootfs.BindMount(dir, "/mnt/plain"), rootfs.BindMount(dir, "/mnt/mapped")
	mapped.IDMap = rootfs.MappedAll
	if err := c.Mount(testContext(t), plain, mapped); err != nil {
		t.Fatal(err)
	}
	if out, _ := execs(t, c, "stat -c %u /mnt/plain/file /mnt/mapped/file"); out != "65534\n0\n" {
		t.Errorf("%q", out)
	}
}

// Unmount takes away what Mount attached, however the directories above it have been moved, and nothing else.
func TestUnmountRecognizes(t *testing.T) {
	noLeaks(t)
	c := runs(t, WithMount(rootfs.TmpfsMount("/srv", 1<<20)))
	ctx := testContext(t)
	if err := c.Unmount(ctx, "/srv"); !errors.Is(err, ErrNotMounted) {
		t.Errorf("%v", err)
	}
	if err := c.Mount(ctx, rootfs.TmpfsMount("/a b/shm", 1<<20), rootfs.TmpfsMount("/var/link", 1<<20)); err != nil {
		t.Fatal(err)
	}
	if out, _ := execs(t, c, "mv '/a b' /elsewhere && ln -s /dev '/a b' && grep -c ' /elsewhere/shm ' /proc/self/mountinfo "); out != "1\n" {
		t.Fatalf("%q", out)
	}
	if err := c.Unmount(ctx, "/a b/shm"); err != nil {
		t.Fatal(err)
	}
	out, _ := execs(t, c, "grep -c /elsewhere /proc/self/mountinfo; grep -c /dev/shm /proc/self/mountinfo")
	if out != "0\n1\n" {
		t.Errorf("%q", out)
	}
	if err := c.Unmount(ctx, "/a b/shm"); !errors.Is(err, ErrNotMounted) {
		t.Errorf("%v", err)
	}
	if err := c.Unmount(ctx, "/var", UnmountAny); !errors.Is(err, ErrNotMounted) {
		t.Errorf("not a mount: %v", err)
	}
	if err := c.Unmount(ctx, "/srv", UnmountAny); err != nil {
		t.Error(err)
	}
	p, err := c.Exec(ctx, WithCommand("sleep", "1000"), WithDir("/var/link"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Unmount(ctx, "/var/link"); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	if err := c.Unmount(ctx, "/var/link", UnmountLazy); err != nil {
		t.Error(err)
	}
	_ = p.Kill()
	if _, err := p.Wait(ctx); err != nil {
		t.Error(err)
	}
}

// All or nothing: what was attached before a failure is taken away again.
func TestMountLiveAllOrNothing(t *testing.T) {
	noLeaks(t)
	dir := shared(t)
	c := runs(t)
	err := c.Mount(testContext(t), rootfs.TmpfsMount("/mnt/a", 1<<20), rootfs.BindMount(dir+"/file", "/mnt/a/b"), rootfs.BindMount(dir, "/etc/passwd"))
	var se *StepError
	if !errors.As(err, &se) || !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("%v", err)
	}
	if out, _ := execs(t, c, "grep -c ' /mnt' /proc/self/mountinfo"); out != "0\n" {
		t.Errorf("%q", out)
	}
	if err := c.Unmount(testContext(t), "/mnt/a"); !errors.Is(err, ErrNotMounted) {
		t.Errorf("%v", err)
	}
}

func TestMountLiveRefuses(t *testing.T) {
	ctx := testContext(t)
	fresh := newContainer(t, WithCommand("true"))
	if err := fresh.Mount(ctx, rootfs.TmpfsMount("/mnt", 0)); !errors.Is(err, ErrState) {
		t.Errorf("%v", err)
	}
	noLeaks(t)
	c := runs(t)
	for _, m := range []rootfs.Mount{{}, {Type: rootfs.TypeProc, Target: "/proc"}, {Type: rootfs.TypeTmpfs, Target: "relative"}, {Type: rootfs.TypeTmpfs, Target: "/"},
		{Type: rootfs.TypeTmpfs, Target: "/dev"}, {Type: rootfs.TypeBind, Source: "/proc", Target: "/proc"}, {Type: rootfs.TypeTmpfs, Target: "/proc/1"},
		{Type: rootfs.TypeCgroup, Target: "/x"}, {Type: rootfs.TypeBind, Source: "/etc", Target: "/x", Propagation: rootfs.Shared}} {
		if err := c.Mount(ctx, m); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if err := c.Mount(ctx, rootfs.BindMount("/does/not/exist", "/x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := c.Unmount(ctx, "/x", UnmountOption(0)); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	execs(t, c, "ln -s /proc/self /tmp/p; ln -s /proc /tmp/q")
	for _, target := range []string{"/tmp/p", "/tmp/q", "/tmp/q/sys/kernel"} {
		if err := c.Mount(ctx, rootfs.TmpfsMount(target, 1<<20)); !errors.Is(err, unix.ELOOP) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", target, err)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Mount(gone, rootfs.TmpfsMount("/mnt", 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if out, _ := execs(t, c, "ls /x /mnt 2>&1 | grep -c 'No such'"); out != "2\n" {
		t.Errorf("%q", out)
	}
}

// swapper is a command that exchanges directories and links for as long as it runs.
const swapper = `mkdir -p /a/b /c/b /real/b; ln -s OUT /evil; ln -s /proc /evil2; echo begun
while :; do mv /a /a2; ln -s OUT /a; rm /a; ln -s ../../..OUT /a; rm /a; mv /a2 /a; mv /a/b /a/b2 2>/dev/null; ln -s OUT /a/b; rm /a/b; mv /a/b2 /a/b 2>/dev/null; done`

// Processes inside exchange what lies on the way to a target, and nothing of the host is mounted on or made.
func TestMountLiveHostile(t *testing.T) {
	outside := shared(t)
	// The way out that there would be: a link of procfs of a process outside.
	script := strings.ReplaceAll(swapper, "OUT", fmt.Sprintf("/proc/%d/root%s", os.Getpid(), outside))
	// Every mount is one of the directory. Those of tests of other packages, which run at the same time, are none.
	ours := func() (l []string) {
		for _, line := range testutil.Mounts(t) {
			if strings.Contains(line, filepath.Base(filepath.Dir(outside))) {
				l = append(l, line)
			}
		}
		return l
	}
	for name, opts := range map[string][]Option{"default": nil, "userns": {WithNamespace(namespaces.User, namespaces.New())}, "pids": {WithNamespace(namespaces.PID, namespaces.Host())}} {
		t.Run(name, func(t *testing.T) {
			warmed(t, opts...)
			c := newContainer(t, append([]Option{sh(script)}, opts...)...)
			ctx := testContext(t)
			if _, err := c.Start(ctx); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for w := range 2 {
				wg.Go(func() {
					for i := range rounds(60) {
						target := fmt.Sprintf("/a/b/m%d", w)
						if i%2 == 0 {
							target = "/a/b"
						}
						err := c.Mount(ctx, rootfs.ReadOnlyBindMount(outside, target))
						if err == nil {
							err = c.Unmount(ctx, target, UnmountLazy)
						}
						if errors.Is(err, ErrState) || errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("%v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			if err := c.Stop(ctx, 0); err != nil {
				t.Error(err)
			}
			var names []string
			_ = filepath.WalkDir(outside, func(p string, _ fs.DirEntry, _ error) error { names = append(names, p); return nil })
			if len(names) != 2 {
				t.Errorf("made outside: %q", names)
			}
			if l := ours(); len(l) > 0 {
				t.Errorf("mounted on the host: %q", l)
			}
		})
	}
}

// rounds is n, or less in a short run and on a slow machine.
func rounds(n int) int {
	if testing.Short() || testutil.Slow() {
		return n / 6
	}
	return n
}

// A mount is known to whoever loads the container, and what is gone is known too.
func TestMountLiveLoaded(t *testing.T) {
	noLeaks(t)
	d := stateDir(t)
	id := fmt.Sprint("mount-", os.Getpid())
	c, err := New(WithRootfs(rootfs.Dir(testutil.Busybox(t))), WithCommand("sleep", "1000"), WithID(id), WithDetached(true), WithStateDir(string(d)))
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Mount(ctx, rootfs.TmpfsMount("/mnt/t", 1<<20)); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	l, err := d.Load(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Remove(ctx)
	if err := l.Mount(ctx, rootfs.TmpfsMount("/mnt/u", 1<<20)); err != nil {
		t.Error(err)
	}
	for _, target := range []string{"/mnt/t", "/mnt/u"} {
		if err := l.Unmount(ctx, target); err != nil {
			t.Error(err)
		}
		if err := l.Unmount(ctx, target); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%v", err)
		}
	}
}
