package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/caisson-go/caisson/rootfs"
)

// SnapshotSource is a snapshot as root filesystem: a [rootfs.Source] to give to caisson.WithRootfs. Make it with [Snapshot.Rootfs].
type SnapshotSource struct {
	sn    *Snapshot
	lease string
	err   error
}

var _ rootfs.Source = SnapshotSource{}

// Rootfs is the snapshot as root filesystem of a container. Unless it is read-only it serves one container at a time: for others, and for the same one started
// twice, the error is [ErrInUse]. While the container runs, the snapshot is not removed.
func (sn *Snapshot) Rootfs() SnapshotSource { return SnapshotSource{sn: sn} }

// Lease keeps the snapshot for the container under a name of the caller's choice, such as the id of the container, until [Store.DropLease] or the
// next start of the machine; see [Source.Lease]. A container that outlives its program needs it.
func (r SnapshotSource) Lease(name string) SnapshotSource {
	if !validLease(name) {
		r.err = &Error{Op: "lease", Object: name, Err: because(errInvalid, "a name is 1 to 128 of [A-Za-z0-9_.-]")}
	}
	r.lease = name
	return r
}

// Describe implements [rootfs.Source].
func (r SnapshotSource) Describe(ctx context.Context, env rootfs.Env) (*rootfs.Description, error) {
	if r.err != nil {
		return nil, r.err
	}
	s, name := r.sn.s, r.sn.rec.Name
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	d, err := s.describeSnapshot(ctx, name, r.lease, env)
	if err != nil {
		return nil, fail("describe snapshot", name, err)
	}
	return d, nil
}

func (s *Store) describeSnapshot(ctx context.Context, name, lease string, env rootfs.Env) (_ *rootfs.Description, err error) {
	if err := s.checkMaps(env); err != nil {
		return nil, err
	}
	locks, rec, err := s.takeSnapshot(ctx, name)
	if err != nil {
		return nil, err
	}
	release := func() error {
		var faults []error
		for _, l := range locks {
			faults = append(faults, l.Close())
		}
		locks = nil
		return errors.Join(faults...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()
	if err := erofsNeeds(rec.EROFS, env); err != nil {
		return nil, err
	}
	if !rec.ReadOnly {
		if err := s.prepareChanges(rec, env); err != nil {
			return nil, err
		}
	}
	d, err := s.layOut(ctx, rec, env)
	if err != nil {
		return nil, err
	}
	if lease != "" {
		if err := s.holdSnapshot(rec, lease); err != nil {
			return nil, errors.Join(err, d.Close())
		}
		if err := release(); err != nil { // the lease holds now
			return nil, errors.Join(err, d.Close())
		}
		return d, nil
	}
	d.Release = released(d.Release, release)
	return d, nil
}

// takeSnapshot locks a snapshot for a container.
func (s *Store) takeSnapshot(ctx context.Context, name string) ([]*os.File, *snapRecord, error) {
	keep, rec, err := s.keepSnapshot(ctx, name, false)
	if err != nil {
		return nil, nil, err
	}
	locks := []*os.File{keep}
	if rec.ReadOnly {
		return locks, rec, nil
	}
	write, err := s.lockSnapshot(ctx, name, fileWrite, true, lockPatience(true))
	if err == nil {
		locks = append(locks, write)
		var held bool
		if held, err = s.held(name); held {
			err = ErrInUse
		}
	}
	if err != nil {
		for _, l := range locks {
			l.Close()
		}
		return nil, nil, err
	}
	return locks, rec, nil
}

// holdSnapshot makes a durable lease of the snapshot. The caller has its locks.
func (s *Store) holdSnapshot(rec *snapRecord, lease string) error {
	if !rec.ReadOnly {
		data, err := json.Marshal(holder{Lease: lease})
		if err != nil {
			return err
		}
		if err := s.replaceFile(filepath.Join(dirSnapshots, rec.Name, fileHolder), data); err != nil {
			return err
		}
	}
	_, err := s.takeLease(lease, nil, rec.Name)
	return err
}

// prepareChanges makes the directories of an overlay fit for the container's kind.
func (s *Store) prepareChanges(rec *snapRecord, env rootfs.Env) error {
	if rec.Method != MethodOverlay {
		return nil
	}
	dir := s.snapshotDir(rec.Name)
	if env.UserNamespace && !env.Unprivileged && env.IDMap == nil {
		for _, d := range []string{dirUpper, dirWork} {
			if err := os.Lchown(filepath.Join(dir, d), env.RootUID, env.RootGID); err != nil {
				return err
			}
		}
	}
	if rec.UserMarks == env.UserNamespace {
		return nil
	}
	if err := markBoth(filepath.Join(dir, dirUpper)); err != nil {
		return err
	}
	rec.UserMarks = env.UserNamespace
	return s.writeSnapshot(rec)
}

// layOut describes the snapshot.
func (s *Store) layOut(ctx context.Context, rec *snapRecord, env rootfs.Env) (*rootfs.Description, error) {
	var d *rootfs.Description
	var notes []string
	var err error
	if rec.Method == MethodOverlay {
		d, notes, err = s.layOver(ctx, rec, env)
	} else {
		src := rootfs.Dir(filepath.Join(s.snapshotDir(rec.Name), dirTree))
		if rec.ReadOnly {
			src = src.ReadOnly()
		} else {
			src = src.Writable()
		}
		d, err = src.Describe(ctx, env)
	}
	if err != nil {
		return nil, err
	}
	if rec.Parent == "" && isManifest(rec.Manifest.MediaType) {
		d.Origin = rec.Manifest.Digest.String()
	}
	d.RootMode, d.Notes = rec.RootMode, append(d.Notes, notes...)
	if rec.CallerOwned {
		d.Notes = append(d.Notes, "Files belong to the caller instead of subordinate ids: a snapshot made by "+rec.Method.String()+" has no others.")
	}
	d.Notes = append(d.Notes, rec.notes()...)
	for _, w := range rec.Why {
		d.Notes = append(d.Notes, "The snapshot is made by "+rec.Method.String()+", not by "+w+".")
	}
	return d, nil
}

// layOver describes a snapshot that is an overlay.
func (s *Store) layOver(ctx context.Context, rec *snapRecord, env rootfs.Env) (*rootfs.Description, []string, error) {
	find := s.below
	if rec.ReadOnly {
		find = s.within
	}
	b, err := find(ctx, rec, false)
	if err != nil {
		return nil, nil, err
	}
	d, err := s.overBlobs(b, func(dirs []string) (*rootfs.Description, error) {
		overlay := rootfs.Overlay(dirs...)
		if rec.ReadOnly {
			overlay = overlay.ReadOnly()
		} else {
			overlay = overlay.Upper(s.snapshotDir(rec.Name))
		}
		return overlay.Describe(ctx, env)
	})
	return d, b.notes, err
}
