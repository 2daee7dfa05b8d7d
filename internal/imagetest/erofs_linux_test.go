package imagetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// leftMounted looks for mounts and loop devices of a store. The kernel takes them away a moment after their last user.
func leftMounted(t testing.TB, s *image.Store) {
	t.Helper()
	var left []string
	testutil.Eventually(testutil.Time(time.Minute), func() bool {
		left, _ = filepath.Glob(filepath.Join(s.Dir(), "ingest", "mount-*"))
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), s.Dir()) {
			left = append(left, fmt.Sprintf("%v\n%s", err, mounts))
		}
		loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, l := range loops {
			if data, _ := os.ReadFile(l); strings.Contains(string(data), s.Dir()) {
				left = append(left, l+" is "+string(data))
			}
		}
		return len(left) == 0
	})
	for _, l := range left {
		t.Errorf("left: %s", l)
	}
}

func runErofs(ctx context.Context, t testing.TB, src image.Source, command string, more ...caisson.Option) string {
	t.Helper()
	c, err := caisson.New(append([]caisson.Option{caisson.WithRootfs(src), caisson.WithCommand("/bin/sh", "-c", command)}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, err := c.Output(ctx)
	if err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	return string(out)
}

// TestErofsContainer has containers whose layers are mounted from files: they see what those see whose layers are directories.
func TestErofsContainer(t *testing.T) {
	testutil.NeedErofs(t)
	inside := []caisson.Option{caisson.WithNamespace(namespaces.User, namespaces.New())}
	if !testutil.IDMaps(t) { // the warm-up had no user namespace
		t.Run("warm", func(t *testing.T) {
			runErofs(testContext(t), t, stored(t).Rootfs("base").EROFS(), "true", inside...)
		})
	}
	noLeaks(t)
	ctx := testContext(t)
	s := stored(t)
	const look = `cd /; find . -xdev ! -path './dev*' ! -path './proc*' ! -path './sys*' ! -name resolv.conf ! -name hostname ! -name hosts ! -name etc | sort | while read f; do ` +
		`test -d "$f" && stat -c "%n %A %u %g %F" "$f" || stat -c "%n %A %u %g %s %h %Y %F" "$f"; done; cat kept/x both old/sub/c; sha256sum /bin/busybox`
	for name, opts := range map[string][]caisson.Option{"root": nil, "user namespace": inside} {
		t.Run(name, func(t *testing.T) {
			plain := opts
			if !testutil.IDMaps(t) {
				plain = nil // it sees the same
			}
			want := runErofs(ctx, t, s.Rootfs("base"), look, plain...)
			if got := runErofs(ctx, t, s.Rootfs("base").EROFS(), look, opts...); got != want || !strings.Contains(got, "textext") && !strings.Contains(got, "texttext") {
				t.Errorf("as files:\n%s\nas directories:\n%s", got, want)
			}
			change := "rm -r /old; mkdir /old; ls /old; "
			if opts != nil && !memoryKeepsMarks(t) {
				change = "" // a directory in place of a lower one needs a mark
			}
			if got := runErofs(ctx, t, s.Rootfs("base").EROFS(), change+"echo more >>/both; cat /both", opts...); got != "textmore\n" {
				t.Errorf("%q", got)
			}
			if got := runErofs(ctx, t, s.Rootfs("base").EROFS().ReadOnly(), "echo x >/both || cat /both", opts...); got != "text" {
				t.Errorf("%q", got)
			}
		})
	}
	leftMounted(t, s)
	upper := t.TempDir()
	runErofs(ctx, t, s.Rootfs("base").EROFS().Upper(upper), "echo x >/new; rm /both")
	if got := runErofs(ctx, t, s.Rootfs("base").EROFS().Upper(upper), "cat /new; test ! -e /both"); got != "x\n" {
		t.Errorf("%q", got)
	}
	shared(ctx, t, s)
	leftMounted(t, s)
}

// memoryKeepsMarks says that overlayfs in a user namespace can mark directories of an upper layer in memory: tmpfs has user.* attributes (Linux 6.6).
func memoryKeepsMarks(t *testing.T) bool {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mnt)
	err = unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", mnt), "user.mark", []byte("y"), 0)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Error(err)
	}
	return err == nil
}

// shared has two containers of the same layers at once, while their image goes away.
func shared(ctx context.Context, t *testing.T, s *image.Store) {
	t.Helper()
	var running []*caisson.Container
	for range 2 {
		c, err := caisson.New(caisson.WithRootfs(s.Rootfs("base").EROFS()), caisson.WithCommand("/bin/sh", "-c", "echo up >/up; read x; cat /both"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		if err := start(ctx, c, "/up"); err != nil {
			t.Fatal(err)
		}
		running = append(running, c)
	}
	if err := s.Remove(ctx, "base"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range running {
		root, err := c.Root()
		if err != nil {
			t.Fatal(err)
		}
		if data, err := root.ReadFile("/kept/x", 100); err != nil || string(data) != "text" {
			t.Errorf("%q, %v", data, err)
		}
		root.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(s.Dir(), "layers")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestErofsRefused tells users what they lack.
func TestErofsRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	noLeaks(t)
	ctx := testContext(t)
	s := stored(t)
	c, err := caisson.New(caisson.WithRootfs(s.Rootfs("base").EROFS()), caisson.WithCommand("true"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Start(ctx); !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "leave EROFS out") {
		t.Errorf("%v", err)
	}
	u, err := s.Unpack(ctx, "base", image.UnpackOptions{EROFS: true})
	if err != nil || len(u.Blobs) != 2 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestErofsCommit makes images of what containers changed, whatever their layers are while the store has both forms: no more than that, and also what
// looks as it did before.
func TestErofsCommit(t *testing.T) {
	testutil.NeedErofs(t)
	noLeaks(t)
	ctx := testContext(t)
	s := stored(t)
	var timed bytes.Buffer
	w := tar.NewWriter(&timed)
	for _, name := range []string{"timed/same", "timed/kept"} {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 4, ModTime: time.Unix(1e9, 0)}) // whole seconds: busybox can set them again
		if _, werr := w.Write([]byte("text")); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
	}
	w.Close()
	if _, err := s.Write(ctx, "both", image.ImageSpec{Base: "base", Layers: []image.Layer{image.TarLayer(&timed)}}); err != nil {
		t.Fatal(err)
	}
	for _, erofs := range []bool{false, true} {
		if _, err := s.Unpack(ctx, "both", image.UnpackOptions{EROFS: erofs}); err != nil {
			t.Fatal(err)
		}
	}
	const change = "set -e; echo x >/new; rm /both; echo more >>/kept/x; printf TEXT >/old/b; touch -d '2001-09-09 01:46:40' /old/a; " +
		"cp -p /timed/same /ref; printf TEXT >/timed/same; touch -r /ref /timed/same; stat -c %y-%s /ref /timed/same | sort -u | wc -l; rm /ref"
	for _, tt := range []struct {
		name      string
		src       image.Source
		meanwhile func()
	}{
		{"files", s.Rootfs("both").EROFS(), func() {}},
		{"directories", s.Rootfs("both"), func() {}},
		{"files, removed meanwhile", s.Rootfs("both").EROFS(), func() { repairAll(ctx, t, s) }},
		{"directories alone", s.Rootfs("both"), func() {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out := runAndCommit(ctx, t, s, tt.src, change, "more", tt.meanwhile); out != "1\n" {
				t.Errorf("before and after a file has %s times and sizes", out)
			}
			info, err := s.Inspect(ctx, "more", nil)
			if err != nil {
				t.Fatal(err)
			}
			e := blobEntries(t, s, info.Layers[len(info.Layers)-1])
			for _, name := range []string{"new", ".wh.both", "kept/x", "old/a", "old/b", "timed/same"} {
				if _, ok := e[name]; !ok {
					t.Errorf("%s is missing in %v", name, e)
				}
				delete(e, name)
			}
			for name := range e {
				if !strings.HasSuffix(name, "/") {
					t.Errorf("%s did not change", name)
				}
			}
		})
	}
}

// repairAll has all layers' files of EROFS removed, by marks that do not fit them.
func repairAll(ctx context.Context, t *testing.T, s *image.Store) {
	t.Helper()
	marks, err := filepath.Glob(filepath.Join(s.Dir(), "layers", "*", "layer.json"))
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, path := range marks {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if other := regexp.MustCompile(`"sum":"[0-9a-f]{8}`).ReplaceAll(text, []byte(`"sum":"00000000`)); !bytes.Equal(text, other) {
			changed++
			if err := os.WriteFile(path, other, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if faults, err := s.Repair(ctx); err != nil || changed == 0 || len(faults) != changed {
		t.Fatalf("of %d damaged: %+v, %v", changed, faults, err)
	}
}

func runAndCommit(ctx context.Context, t *testing.T, s *image.Store, src image.Source, command, name string, meanwhile func()) string {
	t.Helper()
	c, err := caisson.New(caisson.WithRootfs(src), caisson.WithCommand("/bin/sh", "-c", command))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, err := c.Output(ctx)
	if err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	meanwhile()
	if _, err := s.Commit(ctx, name, c, image.CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestErofsSnapshots has containers change snapshots whose image's layers are files: with and without a user namespace, after one another and at once, committed,
// compared, sealed, forked and removed.
func TestErofsSnapshots(t *testing.T) {
	testutil.NeedErofs(t)
	kinds := map[string]caisson.Option{"root": caisson.WithNamespace(namespaces.User, namespaces.Host())}
	if testutil.IDMaps(t) {
		kinds["user namespace"] = caisson.WithNamespace(namespaces.User, namespaces.New())
	}
	noLeaks(t)
	ctx := testContext(t)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			s := stored(t)
			layers := func() int { return len(must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(s.Dir(), "layers")))) }
			one := must[*image.Snapshot](t)(s.NewSnapshot(ctx, "one", "base", image.SnapshotOptions{EROFS: true}))
			two := must[*image.Snapshot](t)(s.NewSnapshot(ctx, "two", "base", image.SnapshotOptions{EROFS: true}))
			c := newContainer(t, one.Rootfs(), "set -e; rm /both; rm -r /old; mkdir /old; echo new >/old/new; echo more >>/kept/x; echo up >/up; read x", kind)
			stdin, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			if err := start(ctx, c, "/up"); err != nil {
				t.Fatal(err)
			}
			if got := run(t, two, "cat /both /kept/x; ls /old | wc -l; echo two >/both; cat /both", kind); !strings.HasPrefix(got, "texttext") || !strings.HasSuffix(got, "two") {
				t.Errorf("%q", got)
			}
			for _, err := range []error{s.RemoveSnapshot(ctx, "one"), one.Seal(ctx), newContainer(t, one.Rootfs(), "true", kind).Run(ctx)} {
				if !errors.Is(err, image.ErrInUse) {
					t.Error(err)
				}
			}
			before := layers()
			if _, err := s.Commit(ctx, "mine", c, image.CommitOptions{}); err != nil {
				t.Fatal(err)
			}
			if n := layers(); n != before {
				t.Errorf("a commit makes %d layers more", n-before)
			}
			info := must[*image.Info](t)(s.Inspect(ctx, "mine", nil))
			e := blobEntries(t, s, info.Layers[len(info.Layers)-1])
			for _, name := range []string{".wh.both", "kept/x", "old/new", "up"} {
				if _, ok := e[name]; !ok {
					t.Errorf("%s is missing in %v", name, e)
				}
			}
			if _, ok := e["bin/busybox"]; ok {
				t.Errorf("what did not change is in %v", e)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			leftMounted(t, s)
			const look = "cat /kept/x /old/new; ls /old | wc -l; test ! -e /both"
			for other, kind := range kinds {
				if got := run(t, one, look, kind); got != "textmore\nnew\n1" {
					t.Errorf("%s: %q", other, got)
				}
			}
			if err := one.Seal(ctx); err != nil {
				t.Fatal(err)
			}
			child := must[*image.Snapshot](t)(one.Fork(ctx, "child", image.SnapshotOptions{}))
			if got := run(t, child, look+"; echo child >/both; cat /both", kind); got != "textmore\nnew\n1\nchild" {
				t.Errorf("%q", got)
			}
			diffErofs(ctx, t, s, child)
			for _, n := range []string{"child", "one", "two"} {
				if err := s.RemoveSnapshot(ctx, n); err != nil {
					t.Error(err)
				}
			}
			leftMounted(t, s)
		})
	}
}

// diffErofs compares what a snapshot shows with what it began with: by its own directory, and by those below it.
func diffErofs(ctx context.Context, t *testing.T, s *image.Store, sn *image.Snapshot) {
	t.Helper()
	v := must[*image.SnapshotView](t)(sn.Open(ctx))
	defer v.Close()
	var lower []image.Tree
	for _, dir := range v.Lower {
		lower = append(lower, image.Tree{Path: dir})
	}
	for what, l := range map[string]image.Layer{"both": image.UpperLayer(image.Tree{File: v.Upper}, image.TreeOptions{}),
		"kept/x": image.DiffLayer(lower[1:], lower[0], image.TreeOptions{Skip: func(p string) bool { return !strings.HasPrefix(p, "kept") }})} {
		if _, err := s.Write(ctx, "diff", image.ImageSpec{Layers: []image.Layer{l}}); err != nil {
			t.Fatal(err)
		}
		e := blobEntries(t, s, must[*image.Info](t)(s.Inspect(ctx, "diff", nil)).Layers[0])
		if _, ok := e[what]; !ok {
			t.Errorf("%s is missing in %v", what, e)
		}
	}
	if err := s.Remove(ctx, "diff"); err != nil {
		t.Error(err)
	}
}
