package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A snapshot is a directory, made beside its place and renamed into it when it is complete:
//
//	snapshots/NAME/snapshot.json   the record
//	snapshots/NAME/keep            locked: shared by whoever reads the snapshot, exclusive for whoever removes it
//	snapshots/NAME/write           locked by whoever has it as root filesystem and may change it
//	snapshots/NAME/holder          the lease of a container that outlives its program
//	snapshots/NAME/upper, work     of overlayfs
//	snapshots/NAME/fs              the tree, with the other methods
const (
	dirSnapshots = "snapshots"
	fileSnapshot = "snapshot.json"
	fileKeep     = "keep"
	fileWrite    = "write"
	fileHolder   = "holder"
	dirUpper     = "upper"
	dirWork      = "work"
)

// snapshotPrefix is before the names of snapshots that are being made, in the ingest directory.
const snapshotPrefix = "snapshot-"

// snapRecord is snapshots/NAME/snapshot.json.
type snapRecord struct {
	Version  int                `json:"version"`
	Name     string             `json:"name"`
	Image    string             `json:"image,omitempty"`
	Manifest ocispec.Descriptor `json:"manifest"`
	Platform *ocispec.Platform  `json:"platform,omitempty"`
	Parent   string             `json:"parent,omitempty"`
	Created  time.Time          `json:"created"`
	ReadOnly bool               `json:"readOnly,omitempty"`
	Made     bool               `json:"madeReadOnly,omitempty"` // it never could be changed
	Method   Method             `json:"method"`
	Why      []string           `json:"why,omitempty"`
	EROFS    bool               `json:"erofs,omitempty"` // the image's layers are files; MethodOverlay only
	RootMode uint32             `json:"rootMode"`
	Quota    int64              `json:"quota,omitempty"`
	Project  uint32             `json:"project,omitempty"`
	// UserMarks says that overlayfs was last mounted here in a user namespace, where it has marks of its own.
	UserMarks bool `json:"userMarks,omitempty"`
	// CallerOwned says that all files are the caller's in spite of OwnersMapped, since the method makes no others.
	CallerOwned bool `json:"callerOwned,omitempty"`

	// Xattrs counts extended attributes that the tree could not have.
	Xattrs int64 `json:"xattrs,omitempty"`

	// info is what the image was found to be, while the snapshot is made; it is not written.
	info *Info
}

const snapRecordVersion = 1

// tree is the directory with the snapshot's own files, or empty where it has none.
func (r *snapRecord) tree() string {
	switch {
	case r.Method != MethodOverlay:
		return dirTree
	case r.Made:
		return ""
	}
	return dirUpper
}

// notes says what the tree lacks.
func (r *snapRecord) notes() []string { return (&mark{Xattrs: r.Xattrs}).notes(false) }

func (s *Store) snapshotDir(name string) string { return s.path(filepath.Join(dirSnapshots, name)) }

// readSnapshot reads the record of a snapshot. The name has been checked.
func (s *Store) readSnapshot(name string) (*snapRecord, error) {
	data, err := readBounded(filepath.Join(s.snapshotDir(name), fileSnapshot), maxIndexFile)
	if notExist(err) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	var r snapRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, because(ErrCorrupt, "record of snapshot %s: %v", name, err)
	}
	if r.Version != snapRecordVersion || r.Name != name || r.Method <= MethodBest || r.Method > MethodCopy ||
		r.Parent != "" && checkSnapshotName(r.Parent) != nil || checkDescriptor(r.Manifest) != nil {
		return nil, because(ErrCorrupt, "record of snapshot %s, of version %d; this library knows %d", name, r.Version, snapRecordVersion)
	}
	return &r, nil
}

// snapshotNames lists what is there.
func (s *Store) snapshotNames() ([]string, error) {
	entries, err := os.ReadDir(s.path(dirSnapshots))
	var names []string
	for _, e := range entries {
		if checkSnapshotName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// addSnapshots adds what snapshots need, and returns the first fault: nothing may be removed while it is not known what is needed.
func (s *Store) addSnapshots(needed map[string]bool) error {
	names, err := s.snapshotNames()
	if err != nil {
		return err
	}
	for _, n := range names {
		r, err := s.readSnapshot(n)
		if notExist(err) {
			continue
		}
		if err == nil {
			err = s.reach(r.Manifest, needed)
		}
		if err != nil {
			return &Error{Op: "read snapshot", Object: n, Err: err, Remedy: "remove it with RemoveSnapshot, or call Repair; nothing else is removed before"}
		}
	}
	return nil
}

// keepSnapshot keeps a snapshot from being removed, or, exclusively, from being used. The lock is that of a
// snapshot that is still there.
func (s *Store) keepSnapshot(ctx context.Context, name string, exclusive bool) (*os.File, *snapRecord, error) {
	f, err := s.lockSnapshot(ctx, name, fileKeep, exclusive, lockPatience(exclusive))
	if err != nil {
		return nil, nil, err
	}
	r, err := s.readSnapshot(name)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, r, nil
}

// lockPatience is for how long a snapshot may seem to be used. Who asks whether it is has it alone for a moment, and a process that another goroutine
// has just made has the locks of this program until it executes something. Who seals or removes one, and so keeps all others away, is soon done.
func lockPatience(exclusive bool) time.Duration {
	if exclusive {
		return 300 * time.Millisecond
	}
	return 20 * time.Second
}

// lockSnapshot takes one of a snapshot's locks. It does not wait for who uses the snapshot.
func (s *Store) lockSnapshot(ctx context.Context, name, file string, exclusive bool, patience time.Duration) (*os.File, error) {
	path := filepath.Join(s.snapshotDir(name), file)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errWouldBlock)
	defer cancel()
	f, err := lockFile(ctx, path, exclusive)
	switch {
	case errors.Is(err, errWouldBlock):
		return nil, ErrInUse
	case notExist(err):
		return nil, ErrNotFound
	case err != nil:
		return nil, err
	}
	was, err := f.Stat()
	if err == nil {
		var now os.FileInfo
		if now, err = os.Lstat(path); err == nil && !os.SameFile(was, now) || notExist(err) {
			err = ErrNotFound // it was removed between the two
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// holder is snapshots/NAME/holder.
type holder struct {
	Lease string `json:"lease"`
}

// held reports whether a durable lease has the right to change the snapshot.
func (s *Store) held(name string) (bool, error) {
	data, err := readBounded(filepath.Join(s.snapshotDir(name), fileHolder), maxLease)
	if notExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var h holder
	if err := json.Unmarshal(data, &h); err != nil || !validLease(h.Lease) {
		return false, because(ErrCorrupt, "holder of snapshot %s", name)
	}
	l, err := s.liveLease(s.path(dirLeases + "/" + durablePrefix + h.Lease))
	return l != nil && slices.Contains(l.Snapshots, name), err
}

// leased reports whether any durable lease has the snapshot: a read-only one may have several.
func (s *Store) leased(name string) (bool, error) {
	entries, err := os.ReadDir(s.path(dirLeases))
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), durablePrefix) {
			continue
		}
		l, err := s.liveLease(s.path(dirLeases + "/" + e.Name()))
		if err != nil {
			return false, err
		}
		if l != nil && slices.Contains(l.Snapshots, name) {
			return true, nil
		}
	}
	return false, nil
}

func (s *Store) snapshotInUse(r *snapRecord) bool {
	if leased, err := s.leased(r.Name); leased || err != nil {
		return true
	}
	ctx := context.Background()
	f, err := s.lockSnapshot(ctx, r.Name, fileKeep, true, 0)
	if errors.Is(err, ErrInUse) { // by who uses it, who lets others share it; or by another who asks just now, who does not
		patience := 5 * time.Millisecond
		if f, err = s.lockSnapshot(ctx, r.Name, fileKeep, false, 0); err == nil {
			f.Close()
			patience = 0
		}
		f, err = s.lockSnapshot(ctx, r.Name, fileKeep, true, patience)
	}
	if err != nil {
		return errors.Is(err, ErrInUse)
	}
	f.Close()
	return false
}

// writeSnapshot replaces a snapshot's record.
func (s *Store) writeSnapshot(r *snapRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.replaceFile(filepath.Join(dirSnapshots, r.Name, fileSnapshot), data)
}

// sealSnapshot makes a snapshot read-only.
func (s *Store) sealSnapshot(ctx context.Context, name string) error {
	keep, r, err := s.aloneSnapshot(ctx, name)
	if err != nil {
		return err
	}
	defer keep.Close()
	if r.ReadOnly {
		return nil
	}
	if r.Method == MethodOverlay {
		// As a layer below others it serves containers of either kind.
		if err := markBoth(filepath.Join(s.snapshotDir(name), dirUpper)); err != nil {
			return err
		}
	}
	if err := syncFS(s.snapshotDir(name)); err != nil {
		return err
	}
	r.ReadOnly = true
	return s.writeSnapshot(r)
}

// aloneSnapshot keeps everybody else from using a snapshot.
func (s *Store) aloneSnapshot(ctx context.Context, name string) (*os.File, *snapRecord, error) {
	f, r, err := s.keepSnapshot(ctx, name, true)
	if err != nil {
		return nil, nil, err
	}
	leased, err := s.leased(name)
	if err == nil && leased {
		err = ErrInUse
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, r, nil
}

// retireSnapshot takes a snapshot's name away and returns where its files are. One whose record is damaged goes too.
func (s *Store) retireSnapshot(ctx context.Context, name string) (string, error) {
	keep, err := s.lockSnapshot(ctx, name, fileKeep, true, lockPatience(true)) // whoever forks it keeps it
	if err != nil {
		return "", err
	}
	defer keep.Close()
	leased, err := s.leased(name)
	if err == nil && leased {
		err = ErrInUse
	}
	if err != nil {
		return "", err
	}
	child, err := s.childOf(name)
	if err != nil {
		return "", err
	}
	if child != "" {
		return "", because(ErrInUse, "snapshot %s was forked from it", child)
	}
	if r, err := s.readSnapshot(name); err == nil && r.Project != 0 {
		// Whatever it says: a limit that stays on an id that nobody has harms nobody.
		_ = clearQuota(s.snapshotDir(name), r.Project)
	}
	trash, err := s.discard(s.snapshotDir(name))
	if err != nil {
		return "", err
	}
	return trash, syncDir(s.path(dirSnapshots))
}

// childOf is a snapshot that was forked from name.
func (s *Store) childOf(name string) (string, error) {
	names, err := s.snapshotNames()
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if r, err := s.readSnapshot(n); err == nil && r.Parent == name {
			return n, nil
		}
	}
	return "", nil
}

// snapshotFaults finds records that cannot be read, and trees that are missing.
func (s *Store) snapshotFaults() (faults []Fault, err error) {
	names, err := s.snapshotNames()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		r, err := s.readSnapshot(n)
		if notExist(err) {
			_, err = os.Lstat(s.snapshotDir(n))
			if notExist(err) {
				continue
			}
			err = because(ErrCorrupt, "no record")
		}
		if err == nil && r.tree() != "" {
			_, err = os.Lstat(filepath.Join(s.snapshotDir(n), r.tree()))
		}
		if err == nil && r.Parent != "" {
			if _, perr := s.readSnapshot(r.Parent); perr != nil {
				err = because(ErrCorrupt, "its parent %s: %v", r.Parent, perr)
			}
		}
		if err != nil {
			faults = append(faults, Fault{Snapshot: n, Err: err})
		}
	}
	return faults, nil
}

// snapshotLabel stands for a snapshot among the images of a [Fault]; no image has such a name.
func snapshotLabel(name string) string { return "snapshot " + strings.TrimSpace(name) }
