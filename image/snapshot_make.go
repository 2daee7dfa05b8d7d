package image

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/caisson-go/caisson/rootfs"
)

// stackBelow is what a snapshot begins with: directories, the topmost first, and below them layers that are files of EROFS.
type stackBelow struct {
	dirs     []string
	blobs    []string // keys
	marks    []*blobMark
	rootMode uint32
	xattrs   int64 // that were left out of it
	notes    []string
}

func (u *Unpacked) below() stackBelow {
	b := stackBelow{dirs: u.Dirs, rootMode: u.rootMode, xattrs: u.xattrs, notes: u.Notes}
	if len(u.Blobs) > 0 {
		b.blobs, b.marks = u.keys, u.marks
	}
	return b
}

// mountBelow returns directories for all, the topmost first, and the open mounts of files among them, which are the last ones. They are there until they are released.
func (s *Store) mountBelow(b stackBelow) (dirs []string, files []*os.File, release func() error, err error) {
	if len(b.blobs) == 0 {
		return b.dirs, nil, nil, nil
	}
	files, release, err = s.holdBlobs(b.blobs, b.marks)
	if err != nil {
		return nil, nil, nil, err
	}
	dirs = slices.Clone(b.dirs)
	for _, f := range files {
		dirs = append(dirs, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())))
	}
	return dirs, files, release, nil
}

// below finds the layers of the parent or the image. Layers that are missing are unpacked. The caller holds the store's lock, and the
// snapshot or its parent. plain layers are the caller's, whatever the policy is.
func (s *Store) below(ctx context.Context, r *snapRecord, plain bool) (stackBelow, error) {
	if r.Parent != "" {
		p, err := s.readSnapshot(r.Parent)
		if err != nil {
			return stackBelow{}, err
		}
		return s.within(ctx, p, plain)
	}
	var u *Unpacked
	var err error
	if r.info != nil {
		u, err = s.unpackInfo(ctx, r.info, UnpackOptions{plain: plain, EROFS: r.EROFS})
	} else {
		u, err = s.unpackKnown(ctx, Image{Name: r.Image, Descriptor: r.Manifest}, UnpackOptions{Platform: r.Platform, plain: plain, EROFS: r.EROFS})
	}
	if err != nil {
		return stackBelow{}, err
	}
	return u.below(), nil
}

// within is below with what the snapshot itself has.
func (s *Store) within(ctx context.Context, r *snapRecord, plain bool) (stackBelow, error) {
	own := filepath.Join(s.snapshotDir(r.Name), r.tree())
	if r.Method != MethodOverlay {
		return stackBelow{dirs: []string{own}, rootMode: r.RootMode, xattrs: r.Xattrs, notes: r.notes()}, nil
	}
	b, err := s.below(ctx, r, plain)
	if err == nil && r.tree() != "" {
		b.dirs, b.rootMode = append([]string{own}, b.dirs...), r.RootMode
	}
	return b, err
}

// makeSnapshot makes a snapshot of what rec says. The caller holds the store's lock, and keeps the parent.
func (s *Store) makeSnapshot(ctx context.Context, name string, rec snapRecord, o SnapshotOptions) (*Snapshot, error) {
	if _, err := os.Lstat(s.snapshotDir(name)); !notExist(err) {
		if err == nil {
			err = because(fs.ErrExist, "there is a snapshot of this name")
		}
		return nil, err
	}
	plain := !s.maps.IsZero() && o.Method > MethodOverlay
	b, err := s.below(ctx, &rec, plain)
	if err != nil {
		return nil, err
	}
	rec.Version, rec.Name, rec.Created = snapRecordVersion, name, time.Now().UTC().Truncate(time.Second)
	rec.ReadOnly, rec.Made, rec.RootMode, rec.Quota = o.ReadOnly, o.ReadOnly, b.rootMode, o.Quota
	if rec.RootMode == 0 {
		rec.RootMode = 0o755
	}
	work, err := os.MkdirTemp(s.path(dirIngest), snapshotPrefix)
	if err != nil {
		return nil, err
	}
	if err := s.fillSnapshot(ctx, work, &rec, b, o); err != nil {
		if rec.Project != 0 {
			_ = clearQuota(work, rec.Project)
		}
		return nil, errors.Join(err, removeTree(work))
	}
	if err := os.Rename(work, s.snapshotDir(name)); err != nil {
		return nil, errors.Join(err, removeTree(work))
	}
	if err := syncDir(s.path(dirSnapshots)); err != nil {
		return nil, err
	}
	rec.info = nil
	return &Snapshot{s: s, rec: rec}, nil
}

// fillSnapshot makes everything but the name.
func (s *Store) fillSnapshot(ctx context.Context, work string, rec *snapRecord, b stackBelow, o SnapshotOptions) error {
	var err error
	if rec.Method, rec.Why, err = s.chooseMethod(work, b, o); err != nil {
		return err
	}
	rec.EROFS = rec.EROFS && rec.Method == MethodOverlay
	if rec.Method != MethodOverlay && !s.maps.IsZero() {
		// The caller makes files of its own only: those of other ids would become root's in the container, with their set-user-ID bits.
		if rec.CallerOwned = true; o.Method <= MethodOverlay {
			if b, err = s.below(ctx, rec, true); err != nil {
				return err
			}
		}
	}
	own := filepath.Join(work, rec.tree())
	if rec.tree() != "" {
		if err := makeDirMode(own, rec.RootMode); err != nil {
			return err
		}
	}
	dirs := []string{own}
	if rec.tree() == dirUpper {
		if err := makeDirMode(filepath.Join(work, dirWork), 0o700); err != nil {
			return err
		}
		dirs = append(dirs, filepath.Join(work, dirWork))
	}
	if rec.Quota > 0 {
		if rec.Project, err = s.setQuota(ctx, rec.Quota, dirs); err != nil {
			return err
		}
	}
	if rec.Method != MethodOverlay {
		if err := s.mergeBelow(ctx, own, b, rec, o.ReadOnly); err != nil {
			return err
		}
	}
	for _, f := range []string{fileKeep, fileWrite} {
		if err := os.WriteFile(filepath.Join(work, f), nil, 0o600); err != nil {
			return err
		}
	}
	return s.finishSnapshot(work, rec)
}

// mergeBelow makes the snapshot's tree.
func (s *Store) mergeBelow(ctx context.Context, own string, b stackBelow, rec *snapRecord, readOnly bool) error {
	dirs, _, release, err := s.mountBelow(b)
	if err != nil {
		return err
	}
	rec.Xattrs, err = mergeLayers(ctx, own, dirs, rec.Method, rec.RootMode, readOnly)
	rec.Xattrs += b.xattrs
	if release != nil {
		err = errors.Join(err, release())
	}
	return err
}

// finishSnapshot writes the record and waits until all is on disk.
func (s *Store) finishSnapshot(work string, rec *snapRecord) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(work, fileSnapshot), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = syncRecord(f, work, rec.Method != MethodOverlay)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// syncRecord waits until the record is on disk and all beside it. With a tree that is the whole file system's work; otherwise both are asked for at
// once, since a file system with a journal writes it once for both.
func syncRecord(f *os.File, work string, tree bool) error {
	if tree {
		return errors.Join(f.Sync(), syncFS(work))
	}
	synced := make(chan error, 1)
	go func() { synced <- syncDir(work) }()
	return errors.Join(f.Sync(), <-synced)
}

// makeDirMode makes a directory with a mode in spite of the umask.
func makeDirMode(dir string, mode uint32) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, fs.FileMode(mode&0o777))
}

// chooseMethod takes the first method that works, and says what is against better ones.
func (s *Store) chooseMethod(work string, b stackBelow, o SnapshotOptions) (Method, []string, error) {
	order := []Method{MethodOverlay, MethodReflink, MethodCopy}
	if o.ReadOnly {
		order = []Method{MethodOverlay, MethodHardLink, MethodReflink, MethodCopy}
	}
	if o.Method != MethodBest {
		order = []Method{o.Method}
	}
	if o.EROFS {
		order = []Method{MethodOverlay}
	}
	var why []string
	for _, m := range order {
		err := s.tryMethod(m, work, b)
		if err == nil && m == MethodOverlay {
			// What is wrong with a file is no reason for another method.
			if err := s.tryBlobs(b); err != nil {
				return 0, nil, err
			}
		}
		if err == nil {
			return m, why, nil
		}
		if len(order) == 1 {
			return 0, nil, noMethod(m, o, err)
		}
		why = append(why, m.String()+": "+clip(err.Error()))
	}
	return 0, why, errors.ErrUnsupported
}

// noMethod is the error where the one method that is wanted does not work.
func noMethod(m Method, o SnapshotOptions, err error) error {
	remedy := "leave the choice to MethodBest, or put the store on another file system"
	if o.EROFS {
		remedy = "leave SnapshotOptions.EROFS out, or put the store on another file system"
	}
	return &Error{Op: "make snapshot by", Object: m.String(), Err: because(errors.ErrUnsupported, "%v", err), Remedy: remedy}
}

// tryMethod returns why a method does not work, or nil.
func (s *Store) tryMethod(m Method, work string, b stackBelow) error {
	switch m {
	case MethodOverlay:
		switch n := len(b.dirs) + len(b.blobs); {
		case n == 0:
			return errors.New("the image has no files")
		case n >= rootfs.MaxLayers:
			return errors.New("it takes " + strconv.Itoa(rootfs.MaxLayers) + " layers at most")
		}
		return s.overlay()
	case MethodHardLink, MethodReflink:
		if len(b.blobs) > 0 {
			return errors.New("the image's layers are files of EROFS, which are file systems of their own")
		}
		if m == MethodHardLink {
			return probeLink(work)
		}
		return probeReflink(work)
	}
	return nil
}

// tryBlobs mounts one of the layers that are files, as all will be for a container.
func (s *Store) tryBlobs(b stackBelow) error {
	if len(b.blobs) == 0 {
		return nil
	}
	_, release, err := s.holdBlobs(b.blobs[:1], b.marks)
	if err != nil {
		return err
	}
	return release()
}
