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
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// What is copied in belongs to the container's root user and comes out again as it was, also where others own it inside.
func TestCopyRunning(t *testing.T) {
	src := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(src+"/d/e", 0o750))
	must(os.WriteFile(src+"/d/e/run", []byte("#!/bin/sh\necho copied\n"), 0o755))
	must(os.Chmod(src+"/d/e/run", 0o755|fs.ModeSetuid))
	must(os.Symlink("e/run", src+"/d/link"))
	must(os.WriteFile(src+"/d/sparse", nil, 0o600))
	must(os.Truncate(src+"/d/sparse", 1<<30))
	must(unix.Mkfifo(src+"/d/fifo", 0o600))
	for name, opts := range map[string][]Option{"default": nil, "userns": {WithNamespace(namespaces.User, namespaces.New())}} {
		t.Run(name, func(t *testing.T) {
			warmed(t, opts...)
			c := runs(t, append([]Option{WithMount(rootfs.TmpfsMount("/srv", 1<<20))}, opts...)...)
			ctx := testContext(t)
			for _, dst := range []string{"/srv/new/place", "/var/x"} {
				must(c.CopyIn(ctx, src+"/d", dst))
				out, _ := execs(t, c, fmt.Sprintf("cd %s && ./link && stat -c '%%n %%a %%u %%g %%s' . e e/run sparse && ls && du sparse | cut -f1", dst))
				if out != "copied\n. 750 0 0 "+sizeOf(t, c, dst)+"\ne 750 0 0 "+sizeOf(t, c, dst+"/e")+"\ne/run 755 0 0 22\nsparse 600 0 0 1073741824\ne\nlink\nsparse\n0\n" {
					t.Errorf("%s: %q", dst, out)
				}
			}
			owner := "1000"
			if name == "default" && !isRoot() || !hasIDs(c) {
				owner = "0"
			}
			execs(t, c, "cd /srv/new; chown -R "+owner+" place; chmod 700 place place/e; chmod 600 place/e/run; echo more >> place/e/run")
			to := t.TempDir() + "/out"
			must(c.CopyOut(ctx, "/srv/new/place", to))
			if b, err := os.ReadFile(to + "/e/run"); err != nil || !strings.HasSuffix(string(b), "more\n") {
				t.Errorf("%q, %v", b, err)
			}
			if s, err := os.Readlink(to + "/link"); err != nil || s != "e/run" {
				t.Errorf("%q, %v", s, err)
			}
			must(c.CopyFS(ctx, fstest.MapFS{"a/b": {Data: []byte("from a tree"), Mode: 0o640}}, "/var"))
			if out, _ := execs(t, c, "cat /var/a/b; stat -c ' %a %U' /var/a/b"); out != "from a tree 640 root\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

func sizeOf(t *testing.T, c *Container, path string) string {
	out, _ := execs(t, c, "stat -c %s "+path)
	return strings.TrimSpace(out)
}

// hasIDs says that the container has more than one user id.
func hasIDs(c *Container) bool {
	return len(c.run.maps.UID) == 0 || c.run.maps.UID[0].Size > 1 || len(c.run.maps.UID) > 1
}

func TestCopyRefuses(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	ctx := testContext(t)
	src := shared(t) + "/file"
	for _, dst := range []string{"/proc/x", "/sys/kernel/x", "/tmp/p/x"} {
		execs(t, c, "ln -sf /proc/sys /tmp/p")
		if err := c.CopyIn(ctx, src, dst); !errors.Is(err, rootfs.ErrNotRegular) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	to := t.TempDir() + "/x"
	if err := c.CopyOut(ctx, "/proc/version", to); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(to); err == nil {
		t.Error("copied a file of procfs")
	}
	if err := c.CopyIn(ctx, src, "/tmp"); !errors.Is(err, unix.EISDIR) {
		t.Errorf("%v", err)
	}
	if err := c.CopyIn(ctx, src+"/none", "/tmp/x"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("%v", err)
	}
	if err := c.CopyIn(ctx, src, "/tmp/"+strings.Repeat("x", 5000)); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("%v", err)
	}
	if err := c.CopyOut(ctx, "/none", to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.CopyIn(gone, src, "/tmp/x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := c.Stop(ctx, 0); err != nil {
		t.Error(err)
	}
	if err := c.CopyIn(ctx, src, "/tmp/x"); !errors.Is(err, ErrState) {
		t.Errorf("%v", err)
	}
}

// A copy ends with its container, and Close does not wait for its end.
func TestCopyEndsWithContainer(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	endless := endlessFS{began: make(chan struct{})}
	done := make(chan error)
	go func() { done <- c.CopyFS(testContext(t), &endless, "/tmp/x") }()
	<-endless.began
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrState) {
		t.Errorf("%v", err)
	}
}

// endlessFS is a file that never ends.
type endlessFS struct {
	once  sync.Once
	began chan struct{}
}

func (e *endlessFS) Open(name string) (fs.File, error) {
	f, err := os.Open("/dev/zero")
	if name == "." {
		return fstest.MapFS{"x": {}}.Open(".")
	}
	e.once.Do(func() { close(e.began) })
	return &endlessFile{f}, err
}

func (e *endlessFS) Lstat(name string) (fs.FileInfo, error) {
	return fstest.MapFS{"x": {Mode: 0o600}}.Stat(name)
}
func (e *endlessFS) ReadLink(string) (string, error) { return "", fs.ErrInvalid }

type endlessFile struct{ *os.File }

func (e *endlessFile) Read(p []byte) (int, error) { time.Sleep(time.Millisecond); return len(p), nil }

// Processes inside exchange what lies on the way of copies, and nothing of the host is read or written.
func TestCopyHostile(t *testing.T) {
	outside := shared(t)
	src := t.TempDir()
	for _, f := range []string{"/s", "/s/b"} {
		if err := os.Mkdir(src+f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(src+"/s/b/evil", []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := strings.ReplaceAll(swapper, "OUT", fmt.Sprintf("/proc/%d/root%s", os.Getpid(), outside))
	for name, opts := range map[string][]Option{"default": nil, "userns": {WithNamespace(namespaces.User, namespaces.New())}, "pids": {WithNamespace(namespaces.PID, namespaces.Host())}} {
		t.Run(name, func(t *testing.T) {
			warmed(t, opts...)
			var out buffer
			c := newContainer(t, append([]Option{sh(script), WithStdout(&out)}, opts...)...)
			ctx := testContext(t)
			if _, err := c.Start(ctx); err != nil {
				t.Fatal(err)
			}
			out.await(t, "begun")
			var wg sync.WaitGroup
			worked := make([]int, 2)
			for w := range worked {
				wg.Go(func() {
					for i := range rounds(300) {
						var err error
						switch to := fmt.Sprintf("%s/out-%s-%d-%d", src, name, w, i); i % 4 {
						case 0:
							err = c.CopyIn(ctx, src+"/s", "/a")
						case 1:
							err = c.CopyIn(ctx, src+"/s/b/evil", "/a/b/file")
						case 2:
							err = c.CopyOut(ctx, "/a/b", to)
						case 3:
							err = c.CopyOut(ctx, "/a/b/file", to)
							if b, _ := os.ReadFile(to); string(b) != "" && string(b) != "evil" {
								t.Errorf("out came %q", b)
							}
						}
						if err == nil {
							worked[w]++
						}
						if errors.Is(err, ErrState) || errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("%v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			t.Logf("%d copies worked", worked)
			if worked[0]+worked[1] == 0 {
				t.Error("no copy worked")
			}
			if err := c.Stop(ctx, 0); err != nil {
				t.Error(err)
			}
			if b, err := os.ReadFile(outside + "/file"); err != nil || string(b) != "of the host\n" {
				t.Errorf("%q, %v", b, err)
			}
			if names, _ := filepath.Glob(outside + "/*"); len(names) != 1 {
				t.Errorf("made outside: %q", names)
			}
			_ = filepath.WalkDir(src, func(p string, d fs.DirEntry, _ error) error {
				if b, _ := os.ReadFile(p); d.Type().IsRegular() && strings.Contains(string(b), "host") {
					t.Errorf("%s came out", p)
				}
				return nil
			})
		})
	}
}
