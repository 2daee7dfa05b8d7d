package namespaces

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
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

// What its own mode closes to the caller is opened, by who is root in a user namespace with no more than the caller's ids; what is not there, or leads elsewhere, is an error like those of
// openat2(2). The first of these is ordinary: the process stays.
func TestOwnersOpen(t *testing.T) {
	o, err := NewOwners(context.Background(), SingleIDMaps())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/d", 0o700), os.WriteFile(dir+"/d/closed", []byte("text"), 0), os.Symlink("/etc", dir+"/d/out"), os.Chmod(dir+"/d", 0)); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir+"/d", 0o700)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS
	child := o.child
	got, err := o.Open(fd, "d/closed", unix.O_RDONLY, beneath)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(got), "closed")
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
	if got, err := o.Open(fd, "d/none", unix.O_RDONLY, beneath); got != -1 || err != unix.ENOENT {
		t.Errorf("%d, %v", got, err)
	}
	if got, err := o.Open(fd, "d/new", unix.O_RDONLY|unix.O_CREAT, beneath); got != -1 || err != unix.EINVAL {
		t.Errorf("%d, %v", got, err)
	}
	if o.child != child {
		t.Error("it made another process")
	}
	for path, want := range map[string]error{"d/closed/x": unix.ENOTDIR, "d/out": unix.ELOOP, "..": unix.EXDEV} {
		if got, err := o.Open(fd, path, unix.O_RDONLY, beneath); got != -1 || err != want {
			t.Errorf("%s: %d, %v, want %v", path, got, err, want)
		}
	}
	if got, err := o.Open(fd, strings.Repeat("x", unix.PathMax), unix.O_PATH, 0); got != -1 || err != unix.ENAMETOOLONG {
		t.Errorf("%d, %v", got, err)
	}
	if got, err := o.Open(fd, "d", unix.O_PATH, beneath); err != nil {
		t.Error(err)
	} else {
		unix.Close(got)
	}
}

// netRaw is CAP_NET_RAW as file capability of version 2.
func netRaw() []byte {
	b := make([]byte, 20)
	b[0], b[3], b[5] = 1, 2, 1<<5
	return b
}
