package image

import (
	"context"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// fillVolume gives the empty directory own what layers, the topmost first, show at a path.
func fillVolume(ctx context.Context, own string, layers []string, at string, b *budget, actor opener) error {
	if err := b.addEntry(); err != nil {
		return err
	}
	trees := make([]Tree, len(layers))
	for i, l := range layers {
		trees[i] = Tree{Path: l}
	}
	readers, err := openReaders(trees)
	defer closeReaders(readers)
	if err != nil {
		return err
	}
	for _, r := range readers {
		r.actor = actor
	}
	dirs, err := shownDir(readers, at)
	defer closeLower(dirs)
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return os.Chmod(own, 0o755)
	}
	root, err := openTreeDir(own)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	m := &merger{ctx: ctx, method: MethodReflink, orCopy: true, owners: isPrivileged(), buf: make([]byte, fileBuffer), root: root, budget: b, actor: actor}
	for _, d := range slices.Backward(dirs) {
		from, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return sysErr("fcntl", err)
		}
		if err := m.opened(from); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(dirs[0].fd, &st); err != nil {
		return sysErr("fstat", err)
	}
	return m.meta(dirs[0].fd, root, &st)
}

// maxFollowed is how many symbolic links are followed on the way to a file, as by the kernel.
const maxFollowed = 40

// shownDir finds the directory that a stack of layers, the topmost first, shows at an absolute path to a process in it: in each layer that it is merged of, or in none if there is
// nothing. The caller closes them, with an error too.
func shownDir(layers []*treeReader, at string) ([]lowerDir, error) {
	type step struct {
		path   string
		layers []*treeReader
	}
	way := []step{{"", layers}} // from the root to where we are
	left := strings.Split(at, "/")
	for followed := 0; len(left) > 0; {
		name, here := left[0], way[len(way)-1]
		left = left[1:]
		switch {
		case name == "" || name == ".":
			continue
		case name == "..":
			way = way[:max(len(way)-1, 1)]
			continue
		}
		st, merged, to, err := shownName(here.layers, here.path, name)
		if st == nil || err != nil {
			return nil, err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			way = append(way, step{joinPath(here.path, name), merged})
		case unix.S_IFLNK:
			if followed++; followed > maxFollowed {
				return nil, because(ErrDocument, "more than %d symbolic links on the way", maxFollowed)
			}
			if strings.HasPrefix(to, "/") {
				way = way[:1]
			}
			left = append(strings.Split(to, "/"), left...)
		default:
			return nil, because(ErrDocument, "the image has something else than a directory there")
		}
	}
	end := way[len(way)-1]
	return openLower(end.layers, end.path)
}

// shownName looks a name up in a directory of a stack of layers; of a symbolic link it returns the target too.
func shownName(layers []*treeReader, path, name string) (st *unix.Stat_t, merged []*treeReader, to string, err error) {
	dirs, err := openLower(layers, path)
	defer closeLower(dirs)
	if err != nil {
		return nil, nil, "", err
	}
	if st, merged, err = findLower(dirs, name); st == nil || err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return st, merged, "", err
	}
	for _, d := range dirs {
		if to, err = d.readlink(name); err != unix.ENOENT {
			break
		}
	}
	return st, nil, to, sysErr("readlinkat", err)
}
