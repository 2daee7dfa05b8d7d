package image

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// ownedLayers are an image whose files belong to several users; the second layer has a directory without an entry.
func ownedLayers(t *testing.T) []blob {
	own := func(uid, gid int, mode int64) func(*tar.Header) {
		return func(h *tar.Header) { h.Uid, h.Gid, h.Mode = uid, gid, mode }
	}
	raw := make([]byte, 20) // CAP_NET_RAW as file capability of version 2
	raw[0], raw[3], raw[5] = 1, 2, 1<<5
	capable := func(h *tar.Header) {
		own(0, 0, 0o755)(h)
		h.PAXRecords = map[string]string{xattrRecord + xattrCaps: string(raw)}
	}
	base := layer(t, dir("home").with(own(0, 0, 0o755)), dir("home/u").with(own(1000, 1001, 0o700)), dir("home/u/deep").with(own(1000, 1001, 0o2750)),
		file("home/u/secret", "x").with(own(1000, 1001, 0o600)), file("home/u/deep/suid", "x").with(own(33, 44, 0o4711)),
		hard("home/u/again", "home/u/secret"), link("home/u/link", "secret").with(own(1000, 1001, 0o777)),
		file("ping", "x").with(capable), file("far", "x").with(own(3_000_000_000, 0, 0o644)), file("turned", "").with(own(7, 8, 0o600)), file("turned", "root's"))
	top := layer(t, file("home/u/new", "").with(own(1000, 1001, 0o640)))
	return []blob{plain(base), plain(top)}
}

// An ordinary user with subordinate ids has files given to them, and can remove these; one without is told that there are none.
func TestMappedOwners(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{Policy: Policy{Owners: OwnersMapped}})
	blobs := ownedLayers(t)
	putImage(t, s, "a", blobs...)
	u := must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
	auto := must[namespaces.AutoMaps](t)(namespaces.AutoIDMaps(namespaces.RootIsCaller))
	notes := strings.Join(u.Notes, " ")
	uid, gid := func(id uint32) uint32 { return id }, func(id uint32) uint32 { return id }
	switch {
	case os.Geteuid() == 0:
	case auto.Style == namespaces.RootIsCaller:
		uid = func(id uint32) uint32 { h, _ := namespaces.ToHost(auto.UID, id); return h }
		gid = func(id uint32) uint32 { h, _ := namespaces.ToHost(auto.GID, id); return h }
		if !strings.HasPrefix(notes, "1 file") || strings.Contains(notes, "only root") {
			t.Errorf("notes: %s", notes)
		}
	default:
		uid, gid = func(uint32) uint32 { return uint32(os.Geteuid()) }, func(uint32) uint32 { return uint32(os.Getegid()) }
		if !strings.Contains(notes, "subordinate") {
			t.Errorf("notes: %s", notes)
		}
	}
	top, base := tryOpenTree(t, u.Dirs[0]), tryOpenTree(t, u.Dirs[1])
	check := func(root int, path string, u, g, mode uint32) {
		t.Helper()
		var st unix.Stat_t
		err := unix.Fstatat(root, path, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EACCES) && uid(0) != 0 && uid(1000) != uint32(os.Geteuid()) {
			return // closed to the caller, as it should be
		}
		if err != nil || st.Uid != uid(u) || st.Gid != gid(g) || st.Mode&0o7777 != mode {
			t.Errorf("%s: %d:%d %o, %v; want %d:%d %o", path, st.Uid, st.Gid, st.Mode, err, uid(u), gid(g), mode)
		}
	}
	check(base, ".", 0, 0, 0o755)
	check(base, "home/u", 1000, 1001, 0o700)
	check(base, "ping", 0, 0, 0o755)
	check(base, "turned", 0, 0, 0o644)
	check(top, "home/u", 1000, 1001, 0o700)
	for _, path := range []string{"home/u/secret", "home/u/again"} {
		check(base, path, 1000, 1001, 0o600)
	}
	check(base, "home/u/deep", 1000, 1001, 0o2750)
	check(base, "home/u/deep/suid", 33, 44, 0o4711)
	if auto.Style == namespaces.RootIsCaller && os.Geteuid() != 0 {
		var v [64]byte
		if n, err := unix.Getxattr(u.Dirs[1]+"/ping", xattrCaps, v[:]); err != nil || n < 20 {
			t.Errorf("capabilities: %d, %v", n, err)
		}
		// A container with other maps gets layers that it can use.
		d := must[*rootfs.Description](t)(s.Rootfs("a").Describe(ctx, rootfs.Env{UserNamespace: true, Unprivileged: true, OwnIDs: true, IDMaps: "0 1 1",
			Features: rootfs.Probe()}))
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if names := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirLayers))); len(names) < 5 {
			t.Errorf("%d layers", len(names))
		}
		sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "sn", "a", SnapshotOptions{Method: MethodOverlay}))
		if _, err := sn.Rootfs().Describe(ctx, rootfs.Env{UserNamespace: true, Unprivileged: true, IDMaps: "0 1 1"}); !errors.Is(err, errInvalid) {
			t.Errorf("a container with other maps: %v", err)
		}
		if err := s.RemoveSnapshot(ctx, "sn"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirLayers))); len(left) != 0 {
		t.Errorf("%d layers are left", len(left))
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirIngest))); len(left) != 0 {
		for _, l := range left {
			if strings.HasPrefix(l.Name(), trashPrefix) {
				t.Errorf("%s is left", l.Name())
			}
		}
	}
}

func tryOpenTree(t *testing.T, dir string) int {
	t.Helper()
	fd, err := openTreeDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
