package image

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/rootfs"
)

// Snapshots that are trees have the caller's files only where the caller is no administrator: nothing fails since a file is another's, and a note says so.
func TestMappedOwnersOfCopies(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{Policy: Policy{Owners: OwnersMapped}})
	putImage(t, s, "a", ownedLayers(t)...)
	for _, o := range []SnapshotOptions{{Method: MethodCopy}, {Method: MethodHardLink, ReadOnly: true}} {
		name := o.Method.String()
		sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "of-"+name[:4], "a", o))
		d := must[*rootfs.Description](t)(sn.Rootfs().Describe(ctx, rootfs.Env{UserNamespace: os.Geteuid() != 0, Unprivileged: os.Geteuid() != 0, IDMaps: s.maps.String(), Features: rootfs.Probe()}))
		if got := strings.Contains(strings.Join(d.Notes, " "), "snapshot made by "+name); got == s.maps.IsZero() {
			t.Errorf("%s: notes %q", name, d.Notes)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if os.Geteuid() == 0 {
			continue
		}
		n := 0
		err := filepath.WalkDir(filepath.Join(s.snapshotDir("of-"+name[:4]), dirTree), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if st := lstat(t, path); st.Uid != uint32(os.Geteuid()) {
				t.Errorf("%s: of %d", path, st.Uid)
			}
			n++
			return nil
		})
		if err != nil || n < 10 {
			t.Errorf("%s: %d files, %v", name, n, err)
		}
	}
}

// The copy of another's file, such as one that a container made, has no set-ID bits: these would be the caller's.
func TestCopiedMode(t *testing.T) {
	me, group := uint32(os.Geteuid()), uint32(os.Getegid())
	for _, tt := range []struct {
		owners         bool
		uid, gid       uint32
		mode, expected uint32
	}{
		{false, me, group, unix.S_IFREG | 0o6755, 0o6755},
		{false, me + 1, group, unix.S_IFREG | 0o6755, 0o755},
		{false, me, group + 1, unix.S_IFREG | 0o6755, 0o4755},
		{false, me + 1, group + 1, unix.S_IFDIR | 0o2755, 0o2755},
		{true, me + 1, group + 1, unix.S_IFREG | 0o6755, 0o6755},
	} {
		if got := (&merger{owners: tt.owners}).mode(&unix.Stat_t{Uid: tt.uid, Gid: tt.gid, Mode: tt.mode}); got != tt.expected {
			t.Errorf("%+v: %o", tt, got)
		}
	}
}
