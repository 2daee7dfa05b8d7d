package image

import (
	"context"
	"io"
)

// writeTree writes the archive r into the directory at path.
func writeTree(ctx context.Context, path string, r io.Reader, policy Policy, b *budget, m *mark, o treeOptions) error {
	root, err := openTreeDir(path)
	if err != nil {
		return err
	}
	t := newTree(root)
	defer t.close()
	a := &applier{t: t, policy: policy, limits: b.limits, budget: b, flat: o.flat, inherited: o.inherited, owners: isPrivileged(), mark: m,
		metas: map[string]dirMeta{}, made: map[uint64]struct{}{}, buf: make([]byte, fileBuffer)}
	t.imply, t.link = a.noteImplied, a.linkDir
	if !o.flat {
		t.covered = func(fd int, _ string) error { return a.setOpaque(fd) }
	}
	return a.apply(ctx, r)
}

// maxImplied bounds the names of directories that no entry stands for.
const maxImplied = 16 << 20

// noteImplied counts a directory without an entry as one.
func (a *applier) noteImplied(path string) error {
	if err := a.budget.addEntry(); err != nil {
		return err
	}
	if a.flat {
		return a.remember(path)
	}
	if a.impliedBytes += len(path) + 16; a.impliedBytes > maxImplied {
		return &LimitError{Limit: "Memory", Max: a.limits.Memory}
	}
	a.mark.Implied = append(a.mark.Implied, path)
	return nil
}
