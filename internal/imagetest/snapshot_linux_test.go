package imagetest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

var testTime = testutil.Time(2 * time.Minute)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newStore opens a store with the image "box", made of a small root filesystem.
func newStore(t testing.TB) *image.Store {
	t.Helper()
	s := must[*image.Store](t)(image.Open(t.TempDir()+"/store", image.Options{}))
	tar := exec.Command("tar", "-C", testutil.Busybox(t), "--owner=0", "--group=0", "-c", ".")
	out := must[interface {
		Read([]byte) (int, error)
		Close() error
	}](t)(tar.StdoutPipe())
	if err := tar.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(testContext(t), out, "box", image.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := tar.Wait(); err != nil {
		t.Fatal(err)
	}
	return s
}

func newContainer(t testing.TB, src image.SnapshotSource, script string, opts ...caisson.Option) *caisson.Container {
	t.Helper()
	c := must[*caisson.Container](t)(caisson.New(append([]caisson.Option{caisson.WithRootfs(src), caisson.WithCommand("sh", "-c", script)}, opts...)...))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return c
}

// run says what a script says in a container of its own.
func run(t testing.TB, sn *image.Snapshot, script string, opts ...caisson.Option) string {
	t.Helper()
	c := newContainer(t, sn.Rootfs(), script, opts...)
	out, err := c.CombinedOutput(testContext(t))
	if err != nil {
		t.Errorf("%s: %v", script, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(out))
}

// Several snapshots of one image are changed at once; each keeps its own changes for the containers that come after.
func TestSnapshots(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t)
	if err := must[*caisson.Container](t)(caisson.New(caisson.WithRootfs(s.Rootfs("box")), caisson.WithCommand("true"))).Run(ctx); err != nil {
		t.Fatal(err) // what the host program keeps from its first container on
	}
	testutil.NoLeaks(t)
	for _, m := range []image.Method{image.MethodOverlay, image.MethodCopy} {
		t.Run(m.String(), func(t *testing.T) {
			one := must[*image.Snapshot](t)(s.NewSnapshot(ctx, "one", "box", image.SnapshotOptions{Method: m}))
			two := must[*image.Snapshot](t)(s.NewSnapshot(ctx, "two", "box", image.SnapshotOptions{Method: m}))
			c := newContainer(t, one.Rootfs(), `echo one >/changed; rm -r /home; mkdir /home; rm /etc/group; sleep 1000`)
			if _, err := c.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if got := run(t, two, "ls /changed /home; echo two >/changed; cat /changed"); !strings.Contains(got, "web") || !strings.HasSuffix(got, "two") {
				t.Error(got)
			}
			again := newContainer(t, one.Rootfs(), "true")
			if err := again.Run(ctx); !errors.Is(err, image.ErrInUse) {
				t.Error(err)
			}
			for _, err := range []error{s.RemoveSnapshot(ctx, "one"), one.Seal(ctx)} {
				if !errors.Is(err, image.ErrInUse) {
					t.Error(err)
				}
			}
			if !testutil.Eventually(testTime/2, func() bool {
				v := must[*image.SnapshotView](t)(one.Open(ctx))
				defer v.Close()
				top := v.Tree
				if top == nil {
					top = v.Upper
				}
				_, err := os.Lstat(top.Name() + "/etc/group")
				return err != nil == (v.Tree != nil) // in an overlay there is a mark of the deleted file
			}) {
				t.Error("/etc/group is still there")
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			script := "cat /changed; ls /home | wc -l; [ ! -e /etc/group ] || echo there"
			if got := run(t, one, script); got != "one\n0" {
				t.Errorf("%q", got)
			}
			if os.Geteuid() == 0 { // the same snapshot without a user namespace, and with one again
				host := caisson.WithNamespace(namespaces.User, namespaces.Host())
				if got := run(t, one, script+"; rm -r /var; mkdir /var; touch /var/x; stat -c %u /var/x /bin/busybox", host); got != "one\n0\n0\n0" {
					t.Errorf("%q", got)
				}
				if got := run(t, one, script+"; ls /var; stat -c %u /var/x"); got != "one\n0\nx\n0" {
					t.Errorf("%q", got)
				}
			}
			if err := one.Seal(ctx); err != nil {
				t.Fatal(err)
			}
			if got := run(t, one, "echo x 2>/dev/null >/changed || cat /changed"); got != "one" {
				t.Errorf("sealed: %q", got)
			}
			child := must[*image.Snapshot](t)(one.Fork(ctx, "child", image.SnapshotOptions{Method: m}))
			if got := run(t, child, "cat /changed; echo more >>/changed; cat /changed; ls /home | wc -l"); got != "one\none\nmore\n0" {
				t.Errorf("%q", got)
			}
			for _, n := range []string{"child", "one", "two"} {
				if err := s.RemoveSnapshot(ctx, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
