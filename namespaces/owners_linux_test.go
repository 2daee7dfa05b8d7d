package namespaces

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Files are given to the ids of a user namespace and taken back, by root and by users with subordinate ids; others can do so with their
// own id only.
func TestOwners(t *testing.T) {
	auto, err := AutoIDMaps(RootIsCaller)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOwners(context.Background(), auto.IDMaps)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if os.Geteuid() == 0 { // the owner must be mapped
		uid, _ := ToHost(auto.UID, 0)
		gid, _ := ToHost(auto.GID, 0)
		if err := f.Chown(int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	fd := int(f.Fd())
	owner := func(uid, gid uint32) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		u, _ := ToHost(auto.UID, uid)
		g, _ := ToHost(auto.GID, gid)
		if st.Uid != u || st.Gid != g {
			t.Errorf("owner %d:%d, want %d:%d", st.Uid, st.Gid, u, g)
		}
	}
	if !o.Has(0, 0) || o.Has(4_000_000_000, 0) {
		t.Error("Has")
	}
	if err := o.Chown(fd, 4_000_000_000, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("an id that is not mapped: %v", err)
	}
	if o.Has(7, 8) {
		if err := errors.Join(o.Chown(fd, 7, 8), o.Chmod(fd, 0o4711), o.Setxattr(fd, "security.capability", netRaw())); err != nil {
			t.Fatal(err)
		}
		owner(7, 8)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o7777 != 0o4711 {
			t.Errorf("mode %o, %v", st.Mode, err)
		}
	}
	if err := o.Setxattr(fd, "trusted.x", nil); !errors.Is(err, unix.EPERM) {
		t.Errorf("an attribute of administrators: %v", err)
	}
	if err := o.Setxattr(fd, "user.x", make([]byte, 65<<10)); !errors.Is(err, unix.E2BIG) {
		t.Errorf("a long attribute: %v", err)
	}
	if err := o.Chown(fd, 0, 0); err != nil {
		t.Fatal(err)
	}
	owner(0, 0)
	dead, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if err := o.Setxattr(int(dead.Fd()), "user.x", nil); err == nil { // ends the process, and the next call makes another
		t.Error("procfs took an attribute")
	}
	if err := o.Chown(fd, 0, 0); err != nil {
		t.Error(err)
	}
	if err := errors.Join(o.Close(), o.Close()); err != nil {
		t.Error(err)
	}
	if err := o.Chown(fd, 0, 0); !errors.Is(err, ErrOwnersClosed) {
		t.Errorf("closed: %v", err)
	}
}

// netRaw is CAP_NET_RAW as file capability of version 2.
func netRaw() []byte {
	b := make([]byte, 20)
	b[0], b[3], b[5] = 1, 2, 1<<5
	return b
}
