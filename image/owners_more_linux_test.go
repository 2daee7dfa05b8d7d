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

// A file has what its last entry says, by whichever of its paths, and nothing of one that was removed before it.
func TestMappedOwnersOfTheLastEntry(t *testing.T) {
	s := openStore(t, Options{Policy: Policy{Owners: OwnersMapped}})
	var ents []ent
	for range 20 { // numbers of inodes are used again
		ents = append(ents, file("f", "x").with(ownedBy(7, 8, 0o644)), file("f", "x"), file("g", "x").with(ownedBy(9, 9, 0o644)), file("f", "x").with(ownedBy(7, 8, 0o644)),
			file("g", "x"))
	}
	ents = append(ents, file("first", "x").with(ownedBy(7, 8, 0o640)), hard("second", "first"), hard("third", "second"), file("first", "y"), file("second", "z").with(ownedBy(9, 9, 0o644)),
		dir("run"), dir("var"), link("var/run", "/run"), dir("run/x").with(ownedBy(7, 8, 0o711)), dir("var/run/x").with(ownedBy(9, 9, 0o711)),
		dir("var/run/y").with(ownedBy(7, 8, 0o755)), dir("run/y"))
	putImage(t, s, "a", plain(layer(t, ents...)))
	u := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{}))
	mappedOwner(t, s, u.Dirs[0]+"/f", 7, 8, 0o644)
	mappedOwner(t, s, u.Dirs[0]+"/g", 0, 0, 0o644)
	mappedOwner(t, s, u.Dirs[0]+"/first", 0, 0, 0o644)
	mappedOwner(t, s, u.Dirs[0]+"/second", 9, 9, 0o644)
	mappedOwner(t, s, u.Dirs[0]+"/third", 7, 8, 0o640)
	mappedOwner(t, s, u.Dirs[0]+"/run/x", 9, 9, 0o711)
	mappedOwner(t, s, u.Dirs[0]+"/run/y", 0, 0, 0o755)
}

// A directory that is named by two paths is given away once, after all that is in it.
func TestMappedOwnersBySeveralPaths(t *testing.T) {
	s := openStore(t, Options{Policy: Policy{Owners: OwnersMapped}})
	own := ownedBy(7, 8, 0o700)
	ents := []ent{dir("run"), dir("var"), link("var/run", "/run"), dir("run/x").with(own), dir("var/run/x").with(ownedBy(7, 8, 0o711)), dir("run/x/y").with(own),
		dir("run/b").with(own), dir("var/run/b/c").with(own), file("run/b/c/d", "").with(own), dir("var/run/z").with(own)}
	putImage(t, s, "a", plain(layer(t, ents...)))
	u := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{}))
	mappedOwner(t, s, u.Dirs[0]+"/run", 0, 0, 0o755)
	for _, name := range []string{"b", "z", "x/y"} {
		mappedOwner(t, s, u.Dirs[0]+"/run/"+name, 7, 8, 0o700)
	}
	if !s.maps.IsZero() {
		mappedOwner(t, s, u.Dirs[0]+"/run/x", 7, 8, 0o711)
	}
}
