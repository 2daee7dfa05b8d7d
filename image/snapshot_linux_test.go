package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// snapLayers are layers in which everything that snapshots have to reproduce happens.
func snapLayers(t testing.TB) []blob {
	sticky := func(h *tar.Header) { h.Mode = 0o1777 }
	return []blob{
		plain(layer(t, dir("./").with(func(h *tar.Header) { h.Mode = 0o751 }), dir("a"), file("a/x", "x"), file("a/gone", "g"), dir("o"), file("o/hidden", "h"), dir("tmp").with(sticky),
			hard("a/y", "a/x"), link("l", "/a/x"), dir("sub"), file("sub/deep", "1"), dir("wasdir"), file("wasdir/f", ""))),
		plain(layer(t, dir("a"), file("a/.wh.gone", ""), dir("o"), file("o/.wh..wh..opq", ""), file("o/new", "n"), file("wasdir", "file now"), dir("sub").with(func(h *tar.Header) { h.Mode = 0o500 }))),
		plain(layer(t, dir("a"), dir("tmp").with(sticky), file("a/x", "x2").with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.t": "v"} }), file("tmp/t", "t"),
			dir("made"), dir("made/in"), file("made/in/f", strings.Repeat("z", 100000)), ent{name: "fifo", kind: tar.TypeFifo, mode: 0o600})),
	}
}

// describe tells all that a tree has, for comparisons; names that are mounted on are left out.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if slices.Contains([]string{"proc", "sys", "dev"}, rel) {
			return nil
		}
		st := lstat(t, p)
		text := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
		if rel != "." {
			text += fmt.Sprint(" ", st.Mtim)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			v := make([]byte, 100)
			n, _ := unix.Lgetxattr(p, "user.t", v)
			text += fmt.Sprintf(" %s %q", sha256Hex(b), v[:max(n, 0)])
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += to
		}
		out[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Whatever the method, a snapshot's tree is the image's.
func TestSnapshotMethods(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	flat := t.TempDir()
	t.Cleanup(func() { emptyDir(flat) })
	must[[]string](t)(s.Extract(ctx, "img", flat, UnpackOptions{}))
	want := describe(t, flat)
	for _, m := range []Method{MethodCopy, MethodReflink, MethodHardLink} {
		sn, err := s.NewSnapshot(ctx, m.String()[:4], "img", SnapshotOptions{Method: m, ReadOnly: m == MethodHardLink})
		if m == MethodReflink && errors.Is(err, errors.ErrUnsupported) {
			continue // see TestReflink
		}
		if err != nil {
			t.Fatal(m, err)
		}
		v := must[*SnapshotView](t)(sn.Open(ctx))
		if got := describe(t, v.Tree.Name()); !maps.Equal(got, want) {
			for k := range want {
				if got[k] != want[k] {
					t.Errorf("%v: %s is %s, want %s", m, k, got[k], want[k])
				}
			}
			t.Errorf("%v: %d files, want %d", m, len(got), len(want))
		}
		a, b := lstat(t, v.Tree.Name()+"/a/x"), lstat(t, v.Tree.Name()+"/a/y")
		if a.Ino == b.Ino { // the topmost layer has a file of its own
			t.Errorf("%v: a/x and a/y are one", m)
		}
		if shared := lstat(t, s.path(dirLayers)+"/"+sha256Hex(snapLayers(t)[0].plain)+"/fs/a/y").Ino == b.Ino; shared != (m == MethodHardLink) {
			t.Errorf("%v: shared with the layer: %v", m, shared)
		}
		if err := errors.Join(v.Close(), v.Close()); err != nil {
			t.Error(err)
		}
		if u := must[SnapshotUsage](t)(sn.Usage(ctx)); u.Files < 10 || (u.Bytes < 100000) != (m == MethodHardLink) {
			t.Errorf("%v: %+v", m, u)
		}
		d := must[*rootfs.Description](t)(sn.Rootfs().Describe(ctx, rootfs.Env{}))
		if d.Kind != rootfs.KindBind || d.Writable != (m != MethodHardLink) || d.RootMode != 0o751 {
			t.Errorf("%v: %+v", m, d)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What snapshots promise about names, use, removal and garbage.
func TestSnapshotLife(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	a := must[*Snapshot](t)(s.NewSnapshot(ctx, "a", "img", SnapshotOptions{}))
	b := must[*Snapshot](t)(s.NewSnapshot(ctx, "b", "img", SnapshotOptions{Method: MethodCopy}))
	if _, err := s.NewSnapshot(ctx, "a", "img", SnapshotOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if _, err := s.NewSnapshot(ctx, "c", "none", SnapshotOptions{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, name := range []string{"", ".", "..", ".x", "a/b", "a\x00", strings.Repeat("x", 129)} {
		if _, err := s.NewSnapshot(ctx, name, "img", SnapshotOptions{}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
		if err := s.RemoveSnapshot(ctx, name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, o := range []SnapshotOptions{{Method: -1}, {Method: 9}, {Method: MethodHardLink}, {Quota: -1}, {Quota: 1, ReadOnly: true}} {
		if _, err := s.NewSnapshot(ctx, "c", "img", o); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	// The image goes; its snapshots do not.
	if err := s.Remove(ctx, "img"); err != nil {
		t.Fatal(err)
	}
	if f := must[Freed](t)(s.GC(ctx)); f != (Freed{}) {
		t.Errorf("%+v", f)
	}
	env := rootfs.Env{Unprivileged: os.Geteuid() != 0, UserNamespace: os.Geteuid() != 0}
	used := must[*rootfs.Description](t)(a.Rootfs().Describe(ctx, env))
	for range 2 {
		if _, err := a.Rootfs().Describe(ctx, env); !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
	}
	if err := s.RemoveSnapshot(ctx, "a"); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := a.Seal(ctx); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	list := must[[]SnapshotInfo](t)(s.Snapshots(ctx))
	if len(list) != 2 || !list[0].InUse || list[1].InUse || list[0].Name != "a" || list[1].Method != MethodCopy || list[0].Image != "docker.io/library/img:latest" {
		t.Errorf("%+v", list)
	}
	if err := errors.Join(used.Close(), used.Close()); err != nil {
		t.Error(err)
	}
	must[*rootfs.Description](t)(a.Rootfs().Lease("box").Describe(ctx, env)).Close()
	if _, err := a.Rootfs().Describe(ctx, env); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := s.RemoveSnapshot(ctx, "a"); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := errors.Join(s.DropLease(ctx, "box"), s.RemoveSnapshot(ctx, "a")); err != nil {
		t.Error(err)
	}
	if _, err := a.Rootfs().Describe(ctx, env); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, err := range []error{s.RemoveSnapshot(ctx, "a"), a.Seal(ctx)} {
		if !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
	if _, err := s.Snapshot(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	view := must[*SnapshotView](t)(b.Open(ctx))
	if err := s.RemoveSnapshot(ctx, "b"); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := errors.Join(view.Close(), s.RemoveSnapshot(ctx, "b")); err != nil {
		t.Error(err)
	}
	if f := must[Freed](t)(s.GC(ctx)); f.Blobs != 5 || f.Layers < 3 {
		t.Errorf("%+v", f)
	}
	for _, d := range []string{dirSnapshots, dirIngest, dirLeases, dirLayers} {
		if left, _ := os.ReadDir(s.path(d)); len(left) != 0 {
			t.Errorf("%s: %v", d, left)
		}
	}
}

// A sealed snapshot is the parent of others.
func TestSnapshotFork(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	for _, m := range []Method{MethodBest, MethodCopy} {
		name := fmt.Sprint("m", int(m))
		p := must[*Snapshot](t)(s.NewSnapshot(ctx, name, "img", SnapshotOptions{Method: m}))
		v := must[*SnapshotView](t)(p.Open(ctx))
		own := v.Upper
		if own == nil {
			own = v.Tree
		}
		if err := os.WriteFile(own.Name()+"/changed", []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		v.Close()
		if _, err := p.Fork(ctx, "early", SnapshotOptions{}); !errors.Is(err, fs.ErrInvalid) {
			t.Error(err)
		}
		if err := errors.Join(p.Seal(ctx), p.Seal(ctx)); err != nil {
			t.Fatal(err)
		}
		c := must[*Snapshot](t)(p.Fork(ctx, name+"-c", SnapshotOptions{Method: MethodCopy}))
		cv := must[*SnapshotView](t)(c.Open(ctx))
		if b, err := os.ReadFile(cv.Tree.Name() + "/changed"); err != nil || string(b) != name {
			t.Errorf("%q, %v", b, err)
		}
		if _, err := os.Lstat(cv.Tree.Name() + "/a/gone"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		cv.Close()
		o := must[*Snapshot](t)(p.Fork(ctx, name+"-o", SnapshotOptions{}))
		if info := must[SnapshotInfo](t)(o.Info(ctx)); info.Parent != name || info.ReadOnly {
			t.Errorf("%+v", info)
		}
		if err := s.RemoveSnapshot(ctx, name); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), name+"-") {
			t.Error(err)
		}
		if err := errors.Join(s.RemoveSnapshot(ctx, name+"-c"), s.RemoveSnapshot(ctx, name+"-o"), s.RemoveSnapshot(ctx, name)); err != nil {
			t.Error(err)
		}
	}
}

// What a tree could not have is told of its forks too, of whatever kind and however far down.
func TestSnapshotForkNotes(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	p := must[*Snapshot](t)(s.NewSnapshot(ctx, "p", "img", SnapshotOptions{Method: MethodCopy, ReadOnly: true}))
	p.rec.Xattrs = 3 // as on a file system without them, of layers that are files
	if err := s.writeSnapshot(&p.rec); err != nil {
		t.Fatal(err)
	}
	const note = "3 extended attributes were left out."
	noted := func(sn *Snapshot, r snapRecord) {
		t.Helper()
		env := rootfs.Env{Unprivileged: os.Geteuid() != 0, UserNamespace: os.Geteuid() != 0}
		d := must[*rootfs.Description](t)(sn.Rootfs().Describe(ctx, env))
		if n := slices.Index(d.Notes, note); n < 0 || slices.Contains(d.Notes[n+1:], note) {
			t.Errorf("%v of %q: %q", r.Method, r.Parent, d.Notes)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	noted(p, p.rec)
	methods := []Method{MethodCopy, MethodHardLink}
	if s.overlay() == nil {
		methods = append(methods, MethodOverlay)
	}
	for _, m := range methods {
		child := must[*Snapshot](t)(p.Fork(ctx, fmt.Sprintf("c%d", m), SnapshotOptions{Method: m, ReadOnly: true}))
		noted(child, child.rec)
		for _, n := range methods {
			grandchild := must[*Snapshot](t)(child.Fork(ctx, fmt.Sprintf("g%d%d", m, n), SnapshotOptions{Method: n, ReadOnly: true}))
			noted(grandchild, grandchild.rec)
		}
		changed := must[*Snapshot](t)(child.Fork(ctx, fmt.Sprintf("w%d", m), SnapshotOptions{}))
		noted(changed, changed.rec)
	}
}

// An overlay's snapshot shares the image's layers, and serves a container with a user namespace after one without.
func TestSnapshotOverlay(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	if err := s.overlay(); err != nil {
		t.Fatalf("no overlay in %s: %v", s.dir, err)
	}
	putImage(t, s, "img", snapLayers(t)...)
	sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "o", "img", SnapshotOptions{Method: MethodOverlay}))
	v := must[*SnapshotView](t)(sn.Open(ctx))
	defer v.Close()
	if v.Upper == nil || v.Tree != nil || len(v.Lower) != 3 {
		t.Fatalf("%+v", v)
	}
	if err := os.Mkdir(v.Upper.Name()+"/o", 0o755); err != nil {
		t.Fatal(err)
	}
	set := xattrOpaqueUser
	if os.Geteuid() == 0 {
		set = xattrOpaque
	}
	if err := unix.Setxattr(v.Upper.Name()+"/o", set, []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	d := must[*rootfs.Description](t)(sn.Rootfs().Describe(ctx, rootfs.Env{UserNamespace: true, RootUID: os.Getuid(), RootGID: os.Getgid()}))
	defer d.Close()
	if !isOpaque(t, v.Upper.Name()+"/o") || len(d.Layers) != 3 || d.Upper.Dir != s.snapshotDir("o") {
		t.Errorf("%+v", d)
	}
	var x [1]byte
	if _, err := unix.Getxattr(v.Upper.Name()+"/o", xattrOpaqueUser, x[:]); err != nil {
		t.Errorf("not marked for user namespaces: %v", err)
	}
	ro := must[*Snapshot](t)(s.NewSnapshot(ctx, "ro", "img", SnapshotOptions{ReadOnly: true}))
	for range 2 {
		d := must[*rootfs.Description](t)(ro.Rootfs().Describe(ctx, rootfs.Env{}))
		defer d.Close()
		if !d.Upper.None || len(d.Layers) != 3 {
			t.Errorf("%+v", d)
		}
	}
}

// What a crash or a stranger leaves: half-made snapshots go; a record that cannot be read stops the garbage collection and is reported.
func TestSnapshotDamage(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	must[*Snapshot](t)(s.NewSnapshot(ctx, "a", "img", SnapshotOptions{}))
	b := must[*Snapshot](t)(s.NewSnapshot(ctx, "b", "img", SnapshotOptions{Method: MethodCopy}))
	if err := os.MkdirAll(s.path(dirIngest+"/snapshot-half/upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(Open(s.dir, Options{}))
	if _, err := os.Lstat(s.path(dirIngest + "/snapshot-half")); !notExist(err) {
		t.Error(err)
	}
	if err := os.WriteFile(s.snapshotDir("a")+"/"+fileSnapshot, []byte(`{"version":1,"name":"b"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(filepath.Join(s.snapshotDir("b"), dirTree)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(ctx); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if _, err := s.Snapshots(ctx); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	faults := must[[]Fault](t)(s.Repair(ctx))
	if len(faults) != 2 || faults[0].Snapshot != "a" || !errors.Is(faults[0].Err, ErrCorrupt) || faults[1].Snapshot != "b" || !notExist(faults[1].Err) {
		t.Errorf("%+v", faults)
	}
	if err := errors.Join(s.RemoveSnapshot(ctx, "a"), s.RemoveSnapshot(ctx, "b")); err != nil {
		t.Error(err)
	}
	if _, err := b.Usage(ctx); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if f, err := s.GC(ctx); err != nil {
		t.Errorf("%+v %v", f, err)
	}
}

// What is too deep for open files is removed all the same.
func TestFlatten(t *testing.T) {
	top := t.TempDir()
	for _, d := range []string{strings.Repeat("d/", 40), "x/" + strings.Repeat("e/", 30), strings.Repeat("d/", 11) + "f"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := flatten(top, 7); err != nil {
		t.Fatal(err)
	}
	n := 0
	filepath.WalkDir(top, func(p string, _ fs.DirEntry, err error) error {
		n++
		if rel, _ := filepath.Rel(top, p); strings.Count(rel, "/") > 7 {
			t.Error(rel)
		}
		return err
	})
	if n != 1+40+31+1 {
		t.Errorf("%d directories", n)
	}
}

// mountImage makes a file system in a file and returns a directory of it. The mount is attached nowhere and goes with the test, and so does
// its loop device.
func mountImage(t *testing.T, fstype string, size int64, mkfs []string, options ...[2]string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: file systems in files are mounted")
	}
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		t.Skipf("no %s on this machine: install the package that has it", mkfs[0])
	}
	disk := filepath.Join(t.TempDir(), "disk")
	f := must[*os.File](t)(os.Create(disk))
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], disk)...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	defer control.Close()
	var loop *os.File
	for end := time.Now().Add(testutil.Time(time.Minute)); ; { // others take them too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skipf("no loop devices here: %v", err)
		}
		if loop, err = os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0); err != nil {
			t.Skipf("no loop devices here: %v", err)
		}
		cfg := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &cfg); err == nil {
			break
		}
		loop.Close()
		if err != unix.EBUSY {
			t.Skipf("no loop devices here: %v", err)
		}
		if time.Now().After(end) {
			t.Fatal("others take every loop device")
		}
	}
	defer loop.Close()
	fsfd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("no file system %s here: %v", fstype, err)
	}
	defer unix.Close(fsfd)
	err = unix.FsconfigSetString(fsfd, "source", loop.Name())
	for _, o := range options {
		if o[1] != "" {
			err = errors.Join(err, unix.FsconfigSetString(fsfd, o[0], o[1]))
		} else {
			err = errors.Join(err, unix.FsconfigSetFlag(fsfd, o[0]))
		}
	}
	if err := errors.Join(err, unix.FsconfigCreate(fsfd)); err != nil {
		t.Skipf("no file system %s here: %v", fstype, err)
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mnt) })
	dir := fmt.Sprintf("/proc/self/fd/%d", mnt)
	if overlaysOn(t, dir) {
		return dir
	}
	// Before Linux 6.15 a mount that is nowhere attached cannot be a layer.
	at := t.TempDir()
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// overlaysOn says that the kernel makes overlays of directories in dir.
func overlaysOn(t *testing.T, dir string) bool {
	t.Helper()
	probe := dir + "/probe"
	for _, d := range []string{"lower", dirUpper, dirWork} {
		if err := os.MkdirAll(filepath.Join(probe, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := tryOverlay(probe)
	return errors.Join(err, os.RemoveAll(probe)) == nil
}

// Where files can share blocks, a tree's share them with the layers.
func TestReflink(t *testing.T) {
	dir := mountImage(t, "xfs", 320<<20, []string{"mkfs.xfs", "-q"})
	ctx := context.Background()
	s := must[*Store](t)(Open(dir+"/store", Options{}))
	big := file("big", strings.Repeat("0123456789abcdef", 1<<20))
	putImage(t, s, "img", plain(layer(t, ent{name: "d", kind: tar.TypeDir}, big, hard("d/big", "big"))))
	s.overlay = func() error { return errors.New("not here") }
	sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "r", "img", SnapshotOptions{}))
	info := must[SnapshotInfo](t)(sn.Info(ctx))
	if info.Method != MethodReflink || len(info.Why) != 1 || !strings.Contains(info.Why[0], "not here") {
		t.Fatalf("%+v", info)
	}
	v := must[*SnapshotView](t)(sn.Open(ctx))
	defer v.Close()
	layerFile := must[*Unpacked](t)(s.Unpack(ctx, "img", UnpackOptions{})).Dirs[0] + "/big"
	if a, b := lstat(t, v.Tree.Name()+"/big"), lstat(t, v.Tree.Name()+"/d/big"); a.Ino != b.Ino || a.Ino == lstat(t, layerFile).Ino {
		t.Error("not one file, or the layer's")
	}
	var before, after unix.Statfs_t
	unix.Statfs(dir, &before)
	second := must[*Snapshot](t)(s.NewSnapshot(ctx, "second", "img", SnapshotOptions{Method: MethodReflink}))
	unix.Statfs(dir, &after)
	if used := int64(before.Bfree-after.Bfree) * before.Bsize; used > 4<<20 {
		t.Errorf("a second one takes %d bytes", used)
	}
	if err := os.WriteFile(v.Tree.Name()+"/big", []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if st := lstat(t, layerFile); st.Size != 16<<20 {
		t.Errorf("the layer's file has %d bytes", st.Size)
	}
	if err := s.RemoveSnapshot(ctx, second.Name()); err != nil {
		t.Error(err)
	}
	if _, err := s.NewSnapshot(ctx, "q", "img", SnapshotOptions{Quota: 1 << 20}); !errors.Is(err, ErrQuota) {
		t.Errorf("a quota without prjquota: %v", err)
	}
}

// A quota holds, counts for its snapshot alone, and goes with it.
func TestSnapshotQuota(t *testing.T) {
	dir := mountImage(t, "ext4", 128<<20, []string{"mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"}, [2]string{"prjquota"})
	ctx := context.Background()
	s := must[*Store](t)(Open(dir+"/store", Options{}))
	putImage(t, s, "img", snapLayers(t)...)
	for _, m := range []Method{MethodOverlay, MethodCopy, MethodOverlay} {
		sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "q", "img", SnapshotOptions{Method: m, Quota: 4 << 20}))
		v := must[*SnapshotView](t)(sn.Open(ctx))
		top := v.Upper
		if top == nil {
			top = v.Tree
		}
		chunk, ignoresQuotas := make([]byte, 3<<20), caps.Of(unix.CAP_SYS_RESOURCE) // ext4's
		if err := withoutCaps(t, ignoresQuotas, func() error { return os.WriteFile(top.Name()+"/fits", chunk, 0o644) }); err != nil {
			t.Errorf("%v: %v", m, err)
		}
		if err := withoutCaps(t, ignoresQuotas, func() error { return os.WriteFile(top.Name()+"/more", chunk, 0o644) }); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%v: %v", m, err)
		}
		other := must[*Snapshot](t)(s.NewSnapshot(ctx, "other", "img", SnapshotOptions{Method: m, Quota: 4 << 20}))
		if other.rec.Project == sn.rec.Project {
			t.Error("one project")
		}
		v.Close()
		if err := errors.Join(s.RemoveSnapshot(ctx, "q"), s.RemoveSnapshot(ctx, "other")); err != nil {
			t.Error(err)
		}
	}
}

// withoutCaps does something without capabilities that this program may have.
func withoutCaps(t *testing.T, lost caps.Set, do func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		effective, permitted, inheritable, err := caps.Held()
		if err == nil {
			d := caps.Encode(effective&^lost, permitted, inheritable)
			err = unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, (*unix.CapUserData)(unsafe.Pointer(&d)))
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
