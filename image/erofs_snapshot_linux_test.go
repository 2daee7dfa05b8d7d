package image

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// A snapshot whose image's layers are files lives as others do, and never has directories made of them.
func TestErofsSnapshot(t *testing.T) {
	ownMounts(t)
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	for _, m := range []Method{MethodHardLink, MethodReflink, MethodCopy} {
		if _, err := s.NewSnapshot(ctx, "tree", "img", SnapshotOptions{EROFS: true, ReadOnly: true, Method: m}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%v: %v", m, err)
		}
	}
	sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "a", "img", SnapshotOptions{EROFS: true}))
	ro := must[*Snapshot](t)(s.NewSnapshot(ctx, "ro", "img", SnapshotOptions{EROFS: true, ReadOnly: true, Method: MethodOverlay}))
	for _, sn := range []*Snapshot{sn, ro, must[*Snapshot](t)(s.Snapshot(ctx, "a"))} {
		if info := must[SnapshotInfo](t)(sn.Info(ctx)); !info.EROFS || info.Method != MethodOverlay || info.InUse || len(info.Why) != 0 {
			t.Errorf("%+v", info)
		}
	}
	files := func(want int) {
		t.Helper()
		entries := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirLayers)))
		for _, e := range entries {
			if !isBlobKey(e.Name()) {
				t.Errorf("a directory was made: %s", e.Name())
			}
		}
		if len(entries) != want {
			t.Errorf("%d layers, want %d", len(entries), want)
		}
	}
	files(3)
	mounted := func(users int) {
		t.Helper()
		for key, m := range s.mounts.of {
			if m.refs != users {
				t.Errorf("%s has %d users, want %d", key, m.refs, users)
			}
		}
		if users == 0 && (len(s.mounts.of) != 0 || mountsBelow(t, s.dir) != 0) {
			t.Errorf("%d left mounted, %d of them attached", len(s.mounts.of), mountsBelow(t, s.dir))
		}
	}
	mounted(0)

	// Who looks sees what directories have, also of files that were damaged and made again meanwhile.
	view := must[*SnapshotView](t)(sn.Open(ctx))
	mounted(1)
	if view.Upper == nil || view.Tree != nil || len(view.Lower) != 3 {
		t.Fatalf("%+v", view)
	}
	if text, err := os.ReadFile(view.Lower[0] + "/a/x"); string(text) != "x2" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.WriteFile(view.Upper.Name()+"/changed", []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	must[Image](t)(s.Write(ctx, "diff", ImageSpec{Base: "img", Layers: []Layer{UpperLayer(Tree{File: view.Upper}, TreeOptions{})}}))
	if u := must[SnapshotUsage](t)(sn.Usage(ctx)); u.Files != 1 || u.Bytes == 0 {
		t.Errorf("%+v", u)
	}
	if u := must[SnapshotUsage](t)(ro.Usage(ctx)); u != (SnapshotUsage{}) {
		t.Errorf("%+v", u)
	}
	if err := s.RemoveSnapshot(ctx, "a"); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	damaged := must[[]string](t)(filepath.Glob(s.path(dirLayers) + "/*/" + fileBlob))
	for _, path := range damaged { // new files: verified ones cannot be written to
		if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("damage"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if faults := must[[]Fault](t)(s.Repair(ctx)); len(faults) != len(damaged) {
		t.Errorf("%+v", faults)
	}
	files(0)
	second := must[*SnapshotView](t)(sn.Open(ctx))
	files(3)
	for _, v := range []*SnapshotView{view, second} {
		if text, err := os.ReadFile(v.Lower[2] + "/sub/deep"); string(text) != "1" {
			t.Errorf("%q, %v", text, err)
		}
		if err := errors.Join(v.Close(), v.Close()); err != nil {
			t.Error(err)
		}
	}
	mounted(0)

	// The image goes: its snapshots keep what they need.
	if err := errors.Join(s.Remove(ctx, "img"), s.Remove(ctx, "diff")); err != nil {
		t.Fatal(err)
	}
	if f := must[Freed](t)(s.GC(ctx)); f.Layers != 0 {
		t.Errorf("%+v", f)
	}
	files(3)
	d := must[*rootfs.Description](t)(sn.Rootfs().Describe(ctx, rootfs.Env{}))
	if !d.EROFS || len(d.Layers) != 3 || d.Layers[0].File == nil || d.Upper.Dir != s.snapshotDir("a") || d.RootMode != 0o751 || d.Origin == "" {
		t.Errorf("%+v", d)
	}
	mounted(1)
	if _, err := sn.Rootfs().Describe(ctx, rootfs.Env{}); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	mounted(1)
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	mounted(0)

	// With a lease the container has the snapshot, and the description its mounts alone.
	d = must[*rootfs.Description](t)(sn.Rootfs().Lease("box").Describe(ctx, rootfs.Env{}))
	mounted(1)
	if err := errors.Join(d.Close()); err != nil {
		t.Error(err)
	}
	mounted(0)
	if err := s.RemoveSnapshot(ctx, "a"); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := s.DropLease(ctx, "box"); err != nil {
		t.Error(err)
	}
	for _, env := range []rootfs.Env{{Unprivileged: true}, {Unprivileged: true, UserNamespace: true}} {
		if _, err := sn.Rootfs().Describe(ctx, env); !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, unix.EPERM) {
			t.Errorf("%v", err)
		}
	}

	if err := sn.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	forkErofs(t, s, sn)
	for _, n := range []string{"a", "ro"} {
		if err := s.RemoveSnapshot(ctx, n); err != nil {
			t.Error(err)
		}
	}
	if f := must[Freed](t)(s.GC(ctx)); f.Layers != 3 {
		t.Errorf("%+v", f)
	}
	files(0)
	mounted(0)
}

// forkErofs has snapshots begin with a sealed one: over it, and as a tree of its own.
func forkErofs(t *testing.T, s *Store, sn *Snapshot) {
	t.Helper()
	ctx := context.Background()
	if _, err := sn.Fork(ctx, "f", SnapshotOptions{EROFS: true}); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	over := must[*Snapshot](t)(sn.Fork(ctx, "over", SnapshotOptions{}))
	if info := must[SnapshotInfo](t)(over.Info(ctx)); !info.EROFS || info.Method != MethodOverlay || info.Parent != "a" {
		t.Errorf("%+v", info)
	}
	d := must[*rootfs.Description](t)(over.Rootfs().Describe(ctx, rootfs.Env{}))
	if len(d.Layers) != 4 || d.Layers[0].Path != filepath.Join(s.snapshotDir("a"), dirUpper) || d.Layers[0].File != nil || d.Layers[1].File == nil || d.Layers[1].Path != "" {
		t.Errorf("%+v", d)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, m := range []Method{MethodReflink, MethodHardLink} {
		if _, err := sn.Fork(ctx, "tree", SnapshotOptions{Method: m, ReadOnly: true}); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "EROFS") {
			t.Errorf("%v: %v", m, err)
		}
	}
	tree := must[*Snapshot](t)(sn.Fork(ctx, "tree", SnapshotOptions{Method: MethodCopy}))
	if info := must[SnapshotInfo](t)(tree.Info(ctx)); info.EROFS || info.Method != MethodCopy {
		t.Errorf("%+v", info)
	}
	v := must[*SnapshotView](t)(tree.Open(ctx))
	got := describe(t, v.Tree.Name())
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	plain := openStore(t, Options{})
	putImage(t, plain, "img", snapLayers(t)...)
	flat := t.TempDir()
	t.Cleanup(func() { emptyDir(flat) })
	must[[]string](t)(plain.Extract(ctx, "img", flat, UnpackOptions{}))
	want := describe(t, flat)
	if !strings.Contains(got["changed"], sha256Hex([]byte("new"))) {
		t.Errorf("%q", got["changed"])
	}
	delete(got, "changed")
	if delete(got, "."); !maps.Equal(got, func() map[string]string { delete(want, "."); return want }()) {
		t.Errorf("%v\nwant %v", got, want)
	}
	for _, n := range []string{"over", "tree"} {
		if err := s.RemoveSnapshot(ctx, n); err != nil {
			t.Error(err)
		}
	}
}

// What cannot be had is said before anything is made, and directories are not taken instead.
func TestErofsSnapshotRefused(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	before := listing(t, s)
	s.overlay = func() error { return errors.New("not here") }
	_, err := s.NewSnapshot(ctx, "a", "img", SnapshotOptions{EROFS: true})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "EROFS out") {
		t.Errorf("%v", err)
	}
	if os.Geteuid() != 0 && !errors.Is(err, unix.EPERM) {
		t.Errorf("%v", err)
	}
	if after := listing(t, s); len(after) != len(before) {
		t.Errorf("left behind: %v", after)
	}
	if list := must[[]SnapshotInfo](t)(s.Snapshots(ctx)); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// A file that is not what was written is told as that, whatever the method, and not as a machine without EROFS.
func TestErofsSnapshotDamaged(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "img", snapLayers(t)...)
	u := must[*Unpacked](t)(s.Unpack(ctx, "img", UnpackOptions{EROFS: true}))
	damage := func() {
		t.Helper()
		for _, path := range u.Blobs { // new files: verified ones cannot be written to
			if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("damage"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wrong := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrSize) || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v, want %v alone", what, err, ErrSize)
		}
	}
	t.Run("choice", func(t *testing.T) {
		damage()
		overlay := s.overlay
		s.overlay = func() error { return nil }
		defer func() { s.overlay = overlay }()
		for _, o := range []SnapshotOptions{{}, {ReadOnly: true}, {Method: MethodOverlay}, {EROFS: true}} {
			m, why, err := s.chooseMethod(t.TempDir(), u.below(), o)
			if m != MethodBest || why != nil {
				t.Errorf("%+v: %v, %q", o, m, why)
			}
			wrong("choice", err)
		}
	})
	t.Run("use", func(t *testing.T) {
		ownMounts(t)
		must[[]Fault](t)(s.Repair(ctx))
		sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "a", "img", SnapshotOptions{EROFS: true}))
		damage()
		_, err := s.NewSnapshot(ctx, "b", "img", SnapshotOptions{EROFS: true})
		wrong("another", err)
		v, err := sn.Open(ctx)
		if v != nil {
			t.Errorf("a view beside an error: %+v", v)
		}
		wrong("view", err)
		_, err = sn.Rootfs().Describe(ctx, rootfs.Env{})
		wrong("container", err)
		if list := must[[]SnapshotInfo](t)(s.Snapshots(ctx)); len(list) != 1 {
			t.Errorf("%+v", list)
		}
	})
}
