package cgroups

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// makeParent makes what is missing of a directory in a hierarchy, and hands the controllers on to it.
func (m *Manager) makeParent(h int, dir string, need Controllers) error {
	hier := &m.layout.Hierarchies[h]
	at := hier.Mountpoint
	fd, err := openDir(unix.AT_FDCWD, at)
	if err != nil {
		return err
	}
	defer func() { unix.Close(fd) }()
	for name := range strings.SplitSeq(strings.Trim(strings.TrimPrefix(dir, at), "/"), "/") {
		if name == "" {
			continue
		}
		if hier.Version == 2 {
			if err := m.enable(fd, at, need); err != nil {
				return err
			}
		}
		made := mkdirAt(fd, name)
		if made != nil && made != unix.EEXIST {
			return made
		}
		next, err := openDir(fd, name)
		if err != nil {
			return err
		}
		at = path.Join(at, name)
		n := node{h: hier, bits: need, path: at, fd: next, procsFD: -1, peakFD: -1}
		if made == nil && hier.Version == 1 && hier.Controllers.Has(CPUSet) {
			err = n.inheritCPUSet(fd, nil)
		}
		unix.Close(fd)
		if fd = next; err != nil {
			return err
		}
	}
	return nil
}
