package image

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// writeTree writes the archive r into the directory at path.
func writeTree(ctx context.Context, path string, r pieces, policy Policy, b *budget, m *mark, o treeOptions) error {
	root, err := openTreeDir(path)
	if err != nil {
		return err
	}
	t := newTree(ctx, root)
	defer t.close()
	buf := filePool.Get().(*[]byte)
	defer filePool.Put(buf)
	a := &applier{ctx: ctx, t: t, policy: policy, limits: b.limits, budget: b, flat: o.flat, inherited: o.inherited, owners: isPrivileged(), giver: o.giver, notes: o.notes, mark: m,
		metas: map[string]dirMeta{}, made: map[uint64]struct{}{}, buf: *buf}
	t.imply, t.link = a.noteImplied, a.linkDir
	t.bare = func(fd int) error {
		if !m.acls {
			return nil
		}
		return a.dropXattrs(fd)
	}
	if o.flat && !a.owners {
		t.enter = a.enter
	}
	if !o.flat {
		t.covered = func(fd int, _ string) error { return a.setOpaque(fd) }
	}
	return a.apply(r)
}

// maxImplied bounds the names of directories that no entry stands for. They are in the layer's mark, where a byte takes up to six, and which is read
// up to maxIndexFile.
const maxImplied = maxIndexFile / 8

// noteImplied counts a directory without an entry as one.
func (a *applier) noteImplied(path string) error {
	delete(a.metas, path) // of one that is gone
	if err := a.budget.addEntry(); err != nil {
		return err
	}
	if a.flat {
		return a.remember(path)
	}
	if a.impliedBytes += len(path) + 64; a.impliedBytes > maxImplied {
		return &LimitError{Limit: "Memory", Max: a.limits.Memory}
	}
	if err := a.notes.grow(2*len(path) + 96 + 2*jsonBytes(path)); err != nil {
		return err
	}
	if a.implied == nil {
		a.implied = map[string]struct{}{}
	}
	a.implied[path] = struct{}{}
	return nil
}

// listImplied puts the directories that no entry stands for in the end into the mark.
func (a *applier) listImplied() error {
	for path := range a.implied {
		if a.replaced {
			fd, err := a.t.entering(path, func() (int, error) {
				return linux.Openat2FD(a.t.root, path, linux.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
			})
			switch err {
			case nil:
				unix.Close(fd)
			case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
				continue
			default:
				return sysErr("openat2", err)
			}
		}
		a.mark.Implied = append(a.mark.Implied, path)
	}
	slices.Sort(a.mark.Implied)
	return nil
}
