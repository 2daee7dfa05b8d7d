package image

import (
	"archive/tar"
	"context"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
)

func ownedBy(uid, gid int, mode int64) func(*tar.Header) {
	return func(h *tar.Header) { h.Uid, h.Gid, h.Mode = uid, gid, mode }
}

// mappedOwner compares a file's owner on disk, as far as the caller may look at it, with that in the image.
func mappedOwner(t *testing.T, s *Store, path string, uid, gid, mode uint32) {
	t.Helper()
	if os.Geteuid() != 0 {
		if s.maps.IsZero() {
			uid, gid = uint32(os.Geteuid()), uint32(os.Getegid())
		} else {
			uid, _ = namespaces.ToHost(s.maps.UID, uid)
			gid, _ = namespaces.ToHost(s.maps.GID, gid)
		}
	}
	if st := lstat(t, path); st.Uid != uid || st.Gid != gid || st.Mode&0o7777 != mode {
		t.Errorf("%s: %d:%d %o; want %d:%d %o", path, st.Uid, st.Gid, st.Mode&0o7777, uid, gid, mode)
	}
}

// Attributes that name ids and that pipes and links cannot be given are left out, and counted.
func TestMappedXattrsOfPipes(t *testing.T) {
	s := openStore(t, Options{Policy: Policy{Owners: OwnersMapped}})
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x07\x00\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	with := func(h *tar.Header) {
		ownedBy(7, 8, 0o664)(h)
		h.PAXRecords = map[string]string{xattrRecord + "system.posix_acl_access": acl}
	}
	pipe := ent{name: "pipe", kind: tar.TypeFifo}.with(with)
	putImage(t, s, "a", plain(layer(t, pipe, link("link", "x").with(with))))
	u := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{}))
	if !s.maps.IsZero() && !strings.Contains(strings.Join(u.Notes, " "), "2 extended attributes") {
		t.Errorf("notes: %q", u.Notes)
	}
	st := lstat(t, u.Dirs[0]+"/pipe")
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("mode %o", st.Mode)
	}
	if !s.maps.IsZero() {
		mappedOwner(t, s, u.Dirs[0]+"/pipe", 7, 8, 0o664)
		mappedOwner(t, s, u.Dirs[0]+"/link", 7, 8, 0o777)
	}
}
