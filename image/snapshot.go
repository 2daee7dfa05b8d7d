package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrQuota says that the store's file system cannot limit what a snapshot takes.
var ErrQuota = errors.New("no quota on this file system")

// Method is how a snapshot shows its files. The zero value means the best one that works here.
type Method int

const (
	// MethodBest takes the first of the following that works where the store is.
	MethodBest Method = iota
	// MethodOverlay lays a directory for the changes over the layers of the image, which all snapshots share (overlayfs; in a user
	// namespace Linux 5.11). Nothing is copied. The layers are directories, or files with [SnapshotOptions].EROFS.
	MethodOverlay
	// MethodHardLink makes a tree whose files are those of the layers under further names. Read-only snapshots only, as a change would
	// be one of the image.
	MethodHardLink
	// MethodReflink makes a tree whose files share their blocks with those of the layers until they are changed (ioctl_ficlone(2): btrfs, xfs,
	// bcachefs).
	MethodReflink
	// MethodCopy makes a tree of copies. It works everywhere.
	MethodCopy
)

var methodNames = []string{"best", "overlay", "hard links", "reflinks", "copy"}

func (m Method) String() string {
	if m < 0 || int(m) >= len(methodNames) {
		return "Method(" + strconv.Itoa(int(m)) + ")"
	}
	return methodNames[m]
}

// SnapshotOptions say how a snapshot is made. The zero value is the default.
type SnapshotOptions struct {
	// Platform chooses from an index. Default: that of this machine.
	Platform *ocispec.Platform
	// ReadOnly makes a snapshot that cannot be changed. It can be the parent of others, and serve any number of containers at once.
	ReadOnly bool
	// Method forces a way. One that does not work here is an error. Default [MethodBest].
	Method Method
	// EROFS takes the image's layers from files that the kernel mounts instead of directories; see [Source.EROFS] for what it needs. [MethodOverlay] alone can: where that does not
	// work, or no such file can be mounted, the error Is [errors.ErrUnsupported]. A file that is not what was written is [ErrSize], [ErrDigest] or [ErrCorrupt], see
	// [Store.Repair]. Default: directories.
	EROFS bool
	// Quota limits the bytes that changes may take; with the methods that make a tree, that the whole tree may take. A write beyond it fails with EDQUOT or ENOSPC. It
	// needs CAP_SYS_ADMIN and a file system with project quotas: ext4 or xfs mounted with the option prjquota; otherwise the error is
	// [ErrQuota]. On ext4 the limit does not hold for processes that have CAP_SYS_RESOURCE in the machine's own user namespace and write to the
	// directory itself: through overlay it does. For a layer in memory see [Source.UpperSize]. Zero: no limit.
	Quota int64
}

// SnapshotInfo is what is known about a snapshot.
type SnapshotInfo struct {
	// Name is the snapshot's.
	Name string
	// Image is the name that the image was found under, Manifest the descriptor that counts: the image may have got another name since.
	Image    string
	Manifest ocispec.Descriptor
	// Parent is the snapshot that it was made from; empty where that was an image.
	Parent string
	// Created is when it was made.
	Created time.Time
	// ReadOnly says that it cannot be changed: it was made so, or sealed.
	ReadOnly bool
	// Method is how it shows its files, and Why are the reasons against better methods, a sentence each.
	Method Method
	Why    []string
	// EROFS says that the image's layers below it are files that the kernel mounts; see [SnapshotOptions].
	EROFS bool
	// Quota is its limit in bytes; zero means none.
	Quota int64
	// InUse says that a container or a program uses it now.
	InUse bool
}

// Snapshot is a root filesystem made of an image that persists until it is removed: what containers change in it is there for the next one. Any number
// of snapshots may be made of one image. Make one with [Store.NewSnapshot], or find it with [Store.Snapshot].
//
// What makes up a snapshot, its image's blobs and layers, is kept by [Store.GC] as long as it exists, also when the image's name is removed.
type Snapshot struct {
	s   *Store
	rec snapRecord
}

// NewSnapshot makes a snapshot of an image. Layers that are not unpacked yet are. The name is 1 to 128 of [A-Za-z0-9_.-], the first one no dot; one that is taken is
// [fs.ErrExist]. When it returns without an error the snapshot survives a crash of the machine; otherwise
// there is none.
func (s *Store) NewSnapshot(ctx context.Context, name, image string, o SnapshotOptions) (*Snapshot, error) {
	if err := errors.Join(checkSnapshotName(name), o.check()); err != nil {
		return nil, fail("make snapshot", name, err)
	}
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	img, err := s.get(image)
	if err != nil {
		return nil, fail("make snapshot", name, &Error{Op: "find image", Object: image, Err: err})
	}
	if o.EROFS {
		err := probeErofs() // before anything is made of the layers
		if err == nil {
			if why := s.overlay(); why != nil {
				err = noMethod(MethodOverlay, o, why)
			}
		}
		if err != nil {
			return nil, fail("make snapshot", name, err)
		}
	}
	info, err := s.inspectImage(img, o.Platform)
	if err != nil {
		return nil, fail("make snapshot", name, err)
	}
	rec := snapRecord{Image: img.Name, Manifest: info.Manifest, Platform: o.Platform, EROFS: o.EROFS, info: info}
	sn, err := s.makeSnapshot(ctx, name, rec, o)
	return sn, fail("make snapshot", name, err)
}

// Fork makes a snapshot that begins as sn is now. sn must be read-only, see [Snapshot.Seal], and cannot be removed before its forks are. It takes the options of
// [Store.NewSnapshot] but for the platform and the form of the image's layers, which are the parent's.
func (sn *Snapshot) Fork(ctx context.Context, name string, o SnapshotOptions) (*Snapshot, error) {
	err := errors.Join(checkSnapshotName(name), o.check())
	if o.Platform != nil {
		err = errors.Join(err, because(errInvalid, "SnapshotOptions.Platform is the parent's"))
	}
	if o.EROFS {
		err = errors.Join(err, because(errInvalid, "SnapshotOptions.EROFS is the parent's"))
	}
	if err != nil {
		return nil, fail("fork snapshot", name, err)
	}
	use, err := sn.s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	keep, rec, err := sn.s.keepSnapshot(ctx, sn.rec.Name, false)
	if err != nil {
		return nil, fail("fork snapshot", sn.rec.Name, err)
	}
	defer keep.Close()
	if !rec.ReadOnly {
		return nil, &Error{Op: "fork snapshot", Object: sn.rec.Name, Err: because(errInvalid, "it can be changed"), Remedy: "call Seal before"}
	}
	child, err := sn.s.makeSnapshot(ctx, name, snapRecord{Image: rec.Image, Manifest: rec.Manifest, Platform: rec.Platform, Parent: rec.Name, EROFS: rec.EROFS}, o)
	return child, fail("fork snapshot", name, err)
}

// Snapshot finds a snapshot. One that does not exist is [ErrNotFound].
func (s *Store) Snapshot(ctx context.Context, name string) (*Snapshot, error) {
	if err := checkSnapshotName(name); err != nil {
		return nil, fail("find snapshot", name, err)
	}
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	rec, err := s.readSnapshot(name)
	if err != nil {
		return nil, fail("find snapshot", name, err)
	}
	return &Snapshot{s: s, rec: *rec}, nil
}

// Snapshots lists all, sorted by name.
func (s *Store) Snapshots(ctx context.Context) ([]SnapshotInfo, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	names, err := s.snapshotNames()
	if err != nil {
		return nil, fail("list snapshots", s.dir, err)
	}
	var out []SnapshotInfo
	for _, n := range names {
		rec, err := s.readSnapshot(n)
		if notExist(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fail("list snapshots", n, err)
		}
		out = append(out, s.infoOf(rec))
	}
	return out, nil
}

// Info tells what is known about the snapshot now.
func (sn *Snapshot) Info(ctx context.Context) (SnapshotInfo, error) {
	now, err := sn.s.Snapshot(ctx, sn.rec.Name)
	if err != nil {
		return SnapshotInfo{}, err
	}
	return sn.s.infoOf(&now.rec), nil
}

// Name is the snapshot's name.
func (sn *Snapshot) Name() string { return sn.rec.Name }

// Seal makes the snapshot read-only for good, so that others can be forked from it. One that a container uses is [ErrInUse]. Its image stays
// what it was: a commit makes an image of its changes, see [Snapshot.Open].
func (sn *Snapshot) Seal(ctx context.Context) error {
	use, err := sn.s.use(ctx)
	if err != nil {
		return err
	}
	defer use.Close()
	return fail("seal snapshot", sn.rec.Name, sn.s.sealSnapshot(ctx, sn.rec.Name))
}

// RemoveSnapshot removes a snapshot with all that was changed in it. One that a container or a program uses, or that others were forked from, is
// [ErrInUse]. Its name is free at once, whatever happens while its files are removed; what a crash leaves of them goes with the next [Store.GC] or [Open].
//
// An ordinary user cannot remove files that a container gave to subordinate ids in directories that belong to those: they stay
// in the store, of no use to anyone, and the error says so.
func (s *Store) RemoveSnapshot(ctx context.Context, name string) error {
	if err := checkSnapshotName(name); err != nil {
		return fail("remove snapshot", name, err)
	}
	use, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer use.Close()
	trash, err := s.retireSnapshot(ctx, name)
	if err != nil {
		return fail("remove snapshot", name, err)
	}
	err = removeTree(trash)
	if errors.Is(err, fs.ErrPermission) {
		return &Error{Op: "remove snapshot", Object: name, Err: underlying(err),
			Remedy: "it is gone, but for files of other ids below " + trash + "; they can be removed as root, or in a user namespace with the container's ids"}
	}
	return fail("remove snapshot", name, err)
}

// SnapshotUsage is what a snapshot takes by itself: its changes, or its tree; not what it shares with the image's layers, but for the blocks that reflinks share,
// which file systems do not tell apart.
type SnapshotUsage struct {
	Bytes int64 // space on disk
	Files int64 // files, directories and marks of deleted ones
}

// Usage measures the snapshot.
func (sn *Snapshot) Usage(ctx context.Context) (SnapshotUsage, error) {
	use, err := sn.s.use(ctx)
	if err != nil {
		return SnapshotUsage{}, err
	}
	defer use.Close()
	keep, rec, err := sn.s.keepSnapshot(ctx, sn.rec.Name, false)
	if err != nil {
		return SnapshotUsage{}, fail("measure snapshot", sn.rec.Name, err)
	}
	defer keep.Close()
	var u SnapshotUsage
	if rec.tree() != "" {
		u, err = measureTree(ctx, filepath.Join(sn.s.snapshotDir(rec.Name), rec.tree()), rec.Method == MethodHardLink)
	}
	return u, fail("measure snapshot", sn.rec.Name, err)
}

// SnapshotView is a snapshot that is looked at, for a commit or a comparison. It keeps the snapshot from being removed.
type SnapshotView struct {
	// Info is what is known about the snapshot.
	Info SnapshotInfo
	// Upper is the directory of the changes in overlayfs's form (character devices 0/0 for deleted files, the attribute
	// trusted.overlay.opaque or user.overlay.opaque for directories that hide those of lower layers); nil with the methods that make a
	// tree, and where nothing can be changed.
	Upper *os.File
	// Tree is the whole tree with the methods that make one, and otherwise nil.
	Tree *os.File
	// Lower are the directories below Upper, the topmost first; none with Tree. They belong to the store. Those of files of EROFS are mounted until the view is
	// closed, and are paths in /proc/self/fd: of use to this program alone.
	Lower []string

	keep    *os.File
	release func() error // of what is mounted; nil for nothing
}

// Trees returns the directories that the snapshot is made of, the topmost first, for [DiffTrees]. They can be read until the view is closed.
func (v *SnapshotView) Trees() (out []Tree) {
	for _, f := range []*os.File{v.Tree, v.Upper} {
		if f != nil {
			out = append(out, Tree{File: f})
		}
	}
	for _, dir := range v.Lower {
		out = append(out, Tree{Path: dir})
	}
	return out
}

// Open looks at a snapshot, also while a container changes it: pause that for a consistent view. The caller closes the view. For files of EROFS the errors are those
// of [SnapshotOptions].EROFS.
func (sn *Snapshot) Open(ctx context.Context) (*SnapshotView, error) {
	use, err := sn.s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	v, err := sn.s.openSnapshot(ctx, sn.rec.Name)
	return v, fail("open snapshot", sn.rec.Name, err)
}

func (s *Store) openSnapshot(ctx context.Context, name string) (_ *SnapshotView, err error) {
	keep, rec, err := s.keepSnapshot(ctx, name, false)
	if err != nil {
		return nil, err
	}
	v := &SnapshotView{Info: s.infoOf(rec), keep: keep}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if rec.tree() != "" {
		f, err := os.Open(filepath.Join(s.snapshotDir(name), rec.tree()))
		if err != nil {
			return nil, err
		}
		if rec.Method == MethodOverlay {
			v.Upper = f
		} else {
			v.Tree = f
			return v, nil
		}
	}
	below, err := s.below(ctx, rec, false)
	if err != nil {
		return nil, err
	}
	if v.Lower, _, v.release, err = s.mountBelow(below); err != nil {
		return nil, err
	}
	return v, nil
}

// Close ends the view. Closing twice is harmless.
func (v *SnapshotView) Close() error {
	var faults []error
	for _, f := range []**os.File{&v.Upper, &v.Tree, &v.keep} {
		if *f != nil {
			faults = append(faults, (*f).Close())
			*f = nil
		}
	}
	if v.release != nil {
		faults = append(faults, v.release())
		v.release = nil
	}
	return errors.Join(faults...)
}

func (o SnapshotOptions) check() error {
	var faults []error
	if o.Method < MethodBest || o.Method > MethodCopy {
		faults = append(faults, because(errInvalid, "SnapshotOptions.Method is %d", o.Method))
	}
	if o.Method == MethodHardLink && !o.ReadOnly {
		faults = append(faults, because(errInvalid, "MethodHardLink is for read-only snapshots: a change would be one of the image"))
	}
	if o.EROFS && o.Method > MethodOverlay {
		faults = append(faults, because(errInvalid, "SnapshotOptions.EROFS with %v: a tree has no layers", o.Method))
	}
	if o.Quota < 0 {
		faults = append(faults, because(errInvalid, "SnapshotOptions.Quota is negative"))
	}
	if o.Quota > 0 && o.ReadOnly {
		faults = append(faults, because(errInvalid, "SnapshotOptions.Quota of what cannot be changed"))
	}
	return errors.Join(faults...)
}

func checkSnapshotName(name string) error {
	if !validLease(name) || strings.HasPrefix(name, ".") {
		return because(errInvalid, "a name is 1 to 128 of [A-Za-z0-9_.-], the first one no dot")
	}
	return nil
}

func (s *Store) infoOf(r *snapRecord) SnapshotInfo {
	return SnapshotInfo{Name: r.Name, Image: r.Image, Manifest: r.Manifest, Parent: r.Parent, Created: r.Created, ReadOnly: r.ReadOnly,
		Method: r.Method, EROFS: r.EROFS, Why: slices.Clone(r.Why), Quota: r.Quota, InUse: s.snapshotInUse(r)}
}
