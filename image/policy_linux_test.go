package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// unpackedAs unpacks the only layer of an image into a directory and into a file of EROFS, which show the same.
func unpackedAs(t *testing.T, s *Store, name string) (dir string, tree map[string]string) {
	t.Helper()
	u := must[*Unpacked](t)(s.Unpack(context.Background(), name, UnpackOptions{}))
	b := must[*Unpacked](t)(s.Unpack(context.Background(), name, UnpackOptions{EROFS: true}))
	tree = treeOfBlob(t, b.Blobs[0])
	sameTree(t, name, treeOfDir(t, u.Dirs[0]), tree, must[*mark](t)(s.readMark(u.keys[0])).Implied)
	return u.Dirs[0], tree
}

// Programs get no rights of others where the policy says so; directories, whose bit means something else, keep theirs. A layer that was unpacked without the policy is not
// taken for one with it.
func TestPolicyNoSetuid(t *testing.T) {
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	bits := func(h *tar.Header) { h.Mode = 0o7755 }
	l := layer(t, file("su", "su").with(bits), hard("link", "su"), dir("d").with(bits), file("d/su", "").with(func(h *tar.Header) { bits(h); h.Uid, h.Gid = 7, 8 }),
		file("caps", "").with(func(h *tar.Header) {
			h.PAXRecords = map[string]string{xattrRecord + xattrCaps: caps, xattrRecord + "user.a": "b"}
		}),
		file("again", ""), file("again", "").with(bits))
	for _, no := range []bool{false, true} {
		s := openStore(t, Options{})
		putImage(t, s, "a", plain(l))
		if no { // the same directory, with layers of the other policy in it
			unpackedAs(t, s, "a")
			s = must[*Store](t)(Open(s.dir, Options{Policy: Policy{NoSetuid: true}}))
			defer s.Close()
		}
		d, tree := unpackedAs(t, s, "a")
		want := map[bool]uint32{false: 0o7755, true: 0o1755}[no]
		for _, name := range []string{"su", "link", "d/su", "again"} {
			if m := lstat(t, filepath.Join(d, name)).Mode; m&0o7777 != want {
				t.Errorf("NoSetuid %v: %s has mode %o", no, name, m)
			}
		}
		if m := lstat(t, d+"/d").Mode; m&0o7777 != 0o7755 {
			t.Errorf("NoSetuid %v: the directory has mode %o", no, m)
		}
		if got := strings.Contains(tree["caps"], xattrCaps); os.Geteuid() == 0 && got == no {
			t.Errorf("NoSetuid %v: %s", no, tree["caps"])
		}
	}
}

// Device nodes are left out and counted, and all else is there. Whoever refuses them is not given those that another policy made.
func TestPolicyDevices(t *testing.T) {
	ctx := context.Background()
	node := func(name string, kind byte, major, minor int64) ent {
		return ent{name: name, kind: kind}.with(func(h *tar.Header) { h.Devmajor, h.Devminor = major, minor })
	}
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, node("null", tar.TypeChar, 1, 3), dir("dev"), node("dev/sda", tar.TypeBlock, 8, 0), ent{name: "fifo", kind: tar.TypeFifo}, file("x", "x"))))
	must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
	refuses := must[*Store](t)(Open(s.dir, Options{Policy: Policy{Devices: DevicesRefused}}))
	defer refuses.Close()
	for _, erofs := range []bool{false, true} {
		if _, err := refuses.Unpack(ctx, "a", UnpackOptions{EROFS: erofs}); !errors.Is(err, ErrDevice) {
			t.Errorf("refused, EROFS %v: %v", erofs, err)
		}
	}
	skips := must[*Store](t)(Open(s.dir, Options{Policy: Policy{Devices: DevicesSkipped}}))
	defer skips.Close()
	_, tree := unpackedAs(t, skips, "a")
	if got := slices.Sorted(maps.Keys(tree)); !slices.Equal(got, []string{"", "dev", "fifo", "x"}) {
		t.Errorf("skipped: %q", got)
	}
	u := must[*Unpacked](t)(skips.Unpack(ctx, "a", UnpackOptions{}))
	if !slices.ContainsFunc(u.Notes, func(n string) bool { return strings.HasPrefix(n, "2 device nodes") }) {
		t.Errorf("skipped: %q", u.Notes)
	}
}

// Names of any bytes are files' where the policy accepts them, and no way around what is refused of all names.
func TestPolicyAnyNames(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{Policy: Policy{AnyNames: true}})
	name := "bad\xff\xfename"
	putImage(t, s, "a", plain(layer(t, file(name, "x").with(func(h *tar.Header) { h.Format = tar.FormatGNU }))))
	if _, tree := unpackedAs(t, s, "a"); tree[name] == "" {
		t.Errorf("%q", tree)
	}
	strict := must[*Store](t)(Open(s.dir, Options{}))
	defer strict.Close()
	if _, err := strict.Unpack(ctx, "a", UnpackOptions{}); !errors.Is(err, ErrBadName) {
		t.Errorf("by another policy: %v", err)
	}
	for bad, want := range map[string]error{"\xff/../../evil": ErrTraversal, strings.Repeat("\xff", 256): ErrBadName, "\xff/.wh.": ErrBadWhiteout} {
		putImage(t, s, "b", plain(rawNamed(t, bad)))
		if _, err := s.Unpack(ctx, "b", UnpackOptions{}); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", bad, err, want)
		}
	}
}

// A directory that becomes a link in the midst of a layer, after files were written into it, is a link from then on: what comes next goes where the link leads, beneath the root, and
// nothing goes through a descriptor of what was there before.
func TestParentSwapped(t *testing.T) {
	out := t.TempDir()
	for what, ents := range map[string][]ent{
		"link":           {dir("a"), file("a/x", "x"), link("a", out), file("a/y", "y")},
		"link up":        {dir("a"), file("a/x", "x"), link("a", strings.Repeat("../", 30)+out[1:]), file("a/y", "y")},
		"deeper":         {dir("a/b/c"), file("a/b/c/x", "x"), link("a", out), file("a/y", "y")},
		"implied":        {file("a/b/x", "x"), link("a/b", out), file("a/b/y", "y")},
		"file between":   {dir("a"), file("a/x", "x"), file("a", ""), link("a", out), file("a/y", "y")},
		"twice":          {dir("a"), file("a/x", "x"), link("a", "b"), dir("b"), file("a/z", "z"), dir("b/c"), file("a/c/x", "x"), link("b", out), file("a/y", "y")},
		"and back":       {dir("a"), file("a/x", "x"), link("a", out), dir("a"), file("a/y", "y")},
		"directory anew": {dir("a"), file("a/x", "x"), file("a", "f"), dir("a"), file("a/y", "y")},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStore(t, Options{})
			putImage(t, s, "a", plain(layer(t, ents...)))
			d, tree := unpackedAs(t, s, "a")
			if names, _ := os.ReadDir(out); len(names) != 0 {
				t.Errorf("outside: %v", names)
			}
			inside := map[string]string{"and back": "a/y", "directory anew": "a/y"}[what]
			if inside == "" {
				inside = out + "/y"
			}
			if got, err := os.ReadFile(filepath.Join(d, inside)); err != nil || string(got) != "y" {
				t.Errorf("%q, %v", got, err)
			}
			for p := range tree {
				if filepath.Base(p) == "x" {
					t.Errorf("%s is still there", p)
				}
			}
		})
	}
}

// What a process takes away from modes of new files is not taken away from an image's.
func TestUnpackUmask(t *testing.T) {
	l := layer(t, dir("d").with(func(h *tar.Header) { h.Mode = 0o1777 }), file("d/f", "").with(func(h *tar.Header) { h.Mode = 0o666 }), file("im/plied/x", "x"),
		ent{name: "fifo", kind: tar.TypeFifo, mode: 0o666}, link("l", "d"), file("l/through", ""), file("p", "").with(func(h *tar.Header) { h.Mode = 0o4755 }))
	open := openStore(t, Options{})
	putImage(t, open, "a", plain(l))
	_, want := unpackedAs(t, open, "a")
	for _, mask := range []int{0o077, 0o777} {
		if mask == 0o777 && os.Geteuid() != 0 {
			continue // its own files are closed to it then
		}
		s := openStore(t, Options{})
		old := unix.Umask(mask)
		defer unix.Umask(old)
		putImage(t, s, "a", plain(l))
		d, got := unpackedAs(t, s, "a")
		unix.Umask(old)
		sameTree(t, "umask", want, got, []string{"im", "im/plied"})
		for _, implied := range []string{"im", "im/plied"} {
			if m := lstat(t, filepath.Join(d, implied)).Mode; m&0o7777 != 0o755 {
				t.Errorf("umask %o: %s has mode %o", mask, implied, m)
			}
		}
	}
}

// A directory's default access list is for files that are made in it later: what the image has in it, in the same layer or in a later one, is as the image says.
func TestUnpackDefaultACL(t *testing.T) {
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x00\x00\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	shared := dir("d").with(func(h *tar.Header) { h.PAXRecords = map[string]string{xattrRecord + xattrDefaultACL: acl} })
	secret := file("d/secret", "x").with(func(h *tar.Header) { h.Mode = 0o640 })
	invalid := dir("d").with(func(h *tar.Header) { h.PAXRecords = map[string]string{xattrRecord + xattrDefaultACL: acl[:20]} }) // takes nothing away
	fifo := ent{name: "d/fifo", kind: tar.TypeFifo, mode: 0o640}
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, dir("./"), shared, invalid, secret, dir("d/sub"), file("d/sub/f", ""), fifo, file("d/implied/f", ""))))
	_, want := unpackedAs(t, s, "a")
	if os.Geteuid() == 0 && !strings.Contains(want["d"], xattrDefaultACL) { // others are not shown it
		t.Errorf("%q", want)
	}
	putImage(t, s, "b", plain(layer(t, dir("./"), shared)), plain(layer(t, dir("d/sub"), secret, file("d/sub/f", ""), fifo, file("d/implied/f", ""))))
	flat := t.TempDir()
	must[[]string](t)(s.Extract(context.Background(), "b", flat, UnpackOptions{}))
	sameTree(t, "flat", want, treeOfDir(t, flat), []string{"d", "d/implied"})
}

// mountNodev returns a directory of a file system in memory, which is attached nowhere and goes with the test.
func mountNodev(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: device nodes are made")
	}
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		t.Fatal(err)
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mnt) })
	return fmt.Sprintf("/proc/self/fd/%d", mnt)
}

// Device nodes of a layer cannot be opened where the store's file system is mounted nodev; they have modes, owners and times all the same.
func TestUnpackNodev(t *testing.T) {
	testutil.NoLeaks(t)
	dir := mountNodev(t)
	l := layer(t, ent{name: "null", kind: tar.TypeChar, mode: 0o666}.with(func(h *tar.Header) { h.Devmajor, h.Devminor = 1, 3; h.Uid, h.Gid = 3, 4 }),
		ent{name: "none", kind: tar.TypeBlock, mode: 0o640}.with(func(h *tar.Header) { h.Devmajor, h.Devminor = 511, 77 }), hard("again", "null"))
	s := must[*Store](t)(Open(filepath.Join(dir, "store"), Options{}))
	defer s.Close()
	putImage(t, s, "a", plain(l))
	d, _ := unpackedAs(t, s, "a")
	if _, err := os.Open(d + "/null"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("opened: %v", err)
	}
	for name, want := range map[string]uint32{"null": unix.S_IFCHR | 0o666, "none": unix.S_IFBLK | 0o640} {
		if st := lstat(t, filepath.Join(d, name)); st.Mode != want || st.Mtim.Sec != at.Unix() || name == "null" && (st.Uid != 3 || st.Gid != 4 || st.Nlink != 2) {
			t.Errorf("%s: %+v", name, st)
		}
	}
}
