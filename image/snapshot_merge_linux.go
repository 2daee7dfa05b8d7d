package image

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// merger makes one tree of the directories of layers, as overlayfs would show them.
type merger struct {
	ctx    context.Context
	method Method
	orCopy bool // where there are no reflinks
	owners bool
	buf    []byte
	// linked holds where in the tree a file with several names in the present layer is.
	linked map[uint64]string
	root   int
	left   int64   // extended attributes that the file system does not take, or that this process may not read
	budget *budget // nil: no limits but those that the layers had
	actor  opener  // opens what this process may not; nil if there is none
}

// mergeLayers fills the directory at path with what layers show, the topmost first. readOnly trees get the directories that things are mounted on, which
// cannot be made later. It returns how many extended attributes were left out.
func mergeLayers(ctx context.Context, path string, layers []string, method Method, rootMode uint32, readOnly bool) (left int64, err error) {
	root, err := openTreeDir(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(root)
	closed := newClosedOpener(ctx)
	defer closed.close()
	m := &merger{ctx: ctx, method: method, owners: isPrivileged(), buf: make([]byte, fileBuffer), root: root, actor: closed.opener()}
	for _, l := range slices.Backward(layers) {
		if err := m.layer(l); err != nil {
			return 0, err
		}
	}
	if readOnly {
		for _, d := range []string{"proc", "sys", "dev"} {
			if err := unix.Mkdirat(root, d, 0o755); err != nil && err != unix.EEXIST {
				return 0, sysErr("mkdirat", err)
			}
		}
	}
	return m.left, sysErr("fchmod", unix.Fchmod(root, rootMode&0o7777))
}

// layer lays what is in a directory over what is there.
func (m *merger) layer(path string) error {
	from, err := openTreeDir(path + "/.") // what is mounted is a link in /proc
	if err != nil {
		return err
	}
	return m.opened(from)
}

// opened is layer for an open directory, which it closes.
func (m *merger) opened(from int) error {
	m.linked = map[uint64]string{}
	return m.dir(from, m.root, "", 0)
}

// open opens a file in a directory of a layer or of the tree, also where their modes keep this process out.
func (m *merger) open(dir int, path string, flags int) (int, error) {
	return (&treeReader{actor: m.actor}).openat(dir, path, flags)
}

// handled calls f with a handle of a file where a call that needed its name failed since the directory may not be searched, and returns err otherwise.
func (m *merger) handled(dir int, name string, err error, f func(fd int) error) error {
	if err != unix.EACCES || m.actor == nil {
		return err
	}
	fd, err := m.open(dir, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// statAt is statAt of a layer.
func (m *merger) statAt(dir int, name string) (st *unix.Stat_t, err error) {
	st, err = statAt(dir, name)
	return st, m.handled(dir, name, err, func(fd int) error { return unix.Fstat(fd, st) })
}

// dir lays what is in one directory over another, and closes the first.
func (m *merger) dir(from, to int, path string, depth int) error {
	f := os.NewFile(uintptr(from), "layer")
	defer f.Close()
	if depth > maxTreeDepth {
		return &LimitError{Limit: "Depth", Max: maxTreeDepth}
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names) // the same every time
	for _, name := range names {
		if err := m.entry(from, to, name, join(path, name), depth); err != nil {
			return entryError("copy", join(path, name), err)
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// entry lays one file over what is there.
func (m *merger) entry(from, to int, name, path string, depth int) error {
	if m.ctx.Err() != nil {
		return context.Cause(m.ctx)
	}
	if m.budget != nil {
		if err := m.budget.addEntry(); err != nil {
			return err
		}
	}
	st, err := m.statAt(from, name)
	if err != nil {
		return sysErr("fstatat", err)
	}
	old, err := statAt(to, name)
	if err != nil && err != unix.ENOENT {
		return sysErr("fstatat", err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if err == nil && !(isDir && old.Mode&unix.S_IFMT == unix.S_IFDIR) {
		if err := removeEntry(to, name, old); err != nil {
			return err
		}
	}
	switch {
	case isWhiteout(st):
		return nil
	case isDir:
		return m.subdir(from, to, name, path, st, depth)
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		return m.file(from, to, name, path, st)
	}
	return m.special(from, to, name, st)
}

func removeEntry(fd int, name string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return removeAt(fd, name)
	}
	return sysErr("unlinkat", unix.Unlinkat(fd, name, 0))
}

func (m *merger) subdir(from, to int, name, path string, st *unix.Stat_t, depth int) error {
	src, err := m.open(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return sysErr("openat2", err)
	}
	if opaqueFD(src) {
		if old, err := statAt(to, name); err == nil {
			err = removeEntry(to, name, old)
			if err != nil {
				unix.Close(src)
				return err
			}
		}
	}
	if err := unix.Mkdirat(to, name, 0o700); err != nil && err != unix.EEXIST {
		unix.Close(src)
		return sysErr("mkdirat", err)
	}
	dst, err := openSub(to, name)
	if err == unix.EACCES { // a mode from a lower layer keeps its own owner out
		if err = unix.Fchmodat(to, name, 0o700, 0); err == nil {
			dst, err = openSub(to, name)
		}
	}
	if err != nil {
		unix.Close(src)
		return sysErr("openat", err)
	}
	defer unix.Close(dst)
	if err := unix.Fchmod(dst, 0o700); err != nil {
		unix.Close(src)
		return sysErr("fchmod", err)
	}
	keep, err := unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, 0) // dir closes what it is given
	if err != nil {
		unix.Close(src)
		return sysErr("fcntl", err)
	}
	defer unix.Close(keep)
	if err := m.dir(src, dst, path, depth+1); err != nil {
		return err
	}
	return m.meta(keep, dst, st)
}

// meta gives an open file what another has: owner, attributes, mode and times.
func (m *merger) meta(from, to int, st *unix.Stat_t) error {
	if m.owners {
		if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return sysErr("fchown", err)
		}
	}
	if err := m.copyXattrs(from, to); err != nil {
		return err
	}
	if err := unix.Fchmod(to, m.mode(st)); err != nil {
		return sysErr("fchmod", err)
	}
	return futimens(to, st.Atim, st.Mtim)
}

// mode is what the copy of a file gets. Set-ID bits are for the ids that a file has, not for the caller that the copy of an ordinary user belongs to.
func (m *merger) mode(st *unix.Stat_t) uint32 {
	mode := st.Mode & 0o7777
	switch {
	case m.owners || st.Mode&unix.S_IFMT == unix.S_IFDIR:
	case st.Uid != uint32(os.Geteuid()):
		mode &^= unix.S_ISUID | unix.S_ISGID
	case st.Gid != uint32(os.Getegid()):
		mode &^= unix.S_ISGID
	}
	return mode
}

// copyXattrs makes the extended attributes of a file those of another, but for overlayfs's own and those of the machine.
func (m *merger) copyXattrs(from, to int) error {
	have, err := imageXattrs(to)
	if err != nil {
		return err
	}
	want, err := imageXattrs(from)
	if err != nil {
		return err
	}
	for _, n := range have {
		if !slices.Contains(want, n) {
			if err := unix.Fremovexattr(to, n); err != nil && err != unix.ENODATA {
				return sysErr("fremovexattr", err)
			}
		}
	}
	var value []byte
	for _, n := range want {
		if value == nil {
			value = make([]byte, 64<<10)
		}
		size, err := unix.Fgetxattr(from, n, value)
		if err == unix.ENODATA {
			continue
		}
		shut := err == unix.EACCES // by its mode, which counts for attributes whoever has opened the file
		if shut {
			// A lower layer's value is not this one's.
			if err := unix.Fremovexattr(to, n); err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
				return sysErr("fremovexattr", err)
			}
		}
		if err == nil {
			err = unix.Fsetxattr(to, n, value[:size], 0)
		}
		if shut || err == unix.ENOTSUP { // the layers are files, and the store's file system has none of that kind: unpacking leaves them out too
			m.left++
			continue
		}
		if err != nil {
			return sysErr("fsetxattr", err)
		}
	}
	return nil
}

// imageXattrs lists the attributes that belong to the image.
func imageXattrs(fd int) ([]string, error) {
	var small [1024]byte
	buf := small[:]
	n, err := unix.Flistxattr(fd, buf)
	if err == unix.ERANGE {
		buf = make([]byte, 64<<10)
		n, err = unix.Flistxattr(fd, buf)
	}
	if err == unix.ENOTSUP || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, sysErr("flistxattr", err)
	}
	names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	return slices.DeleteFunc(names, func(name string) bool {
		a := applier{}
		return name == "" || !a.mayXattr(name)
	}), nil
}

func (m *merger) file(from, to int, name, path string, st *unix.Stat_t) error {
	if m.method == MethodHardLink {
		return m.link(from, name, to, name)
	}
	if first, ok := m.linked[st.Ino]; ok && st.Nlink > 1 {
		return m.again(first, to, name)
	}
	src, err := m.open(from, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return sysErr("openat2", err)
	}
	defer unix.Close(src)
	dst, err := unix.Openat(to, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return sysErr("openat", err)
	}
	defer unix.Close(dst)
	if m.method == MethodReflink && st.Size > 0 {
		if err = unix.IoctlFileClone(dst, src); err != nil && m.orCopy {
			m.method = MethodCopy
		}
		err = sysErr("FICLONE", err)
	}
	if m.method == MethodCopy {
		err = m.copyData(src, dst, st.Size)
	}
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		m.linked[st.Ino] = path
	}
	return m.meta(src, dst, st)
}

// again gives a file that was made one more name.
func (m *merger) again(first string, to int, name string) error {
	parent, base := splitPath(first)
	dir := m.root
	if parent != "" {
		fd, err := m.open(m.root, parent, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return sysErr("openat2", err)
		}
		defer unix.Close(fd)
		dir = fd
	}
	return m.link(dir, base, to, name)
}

// link gives a file one more name, also where the directory that it is in may not be searched.
func (m *merger) link(from int, old string, to int, name string) error {
	err := unix.Linkat(from, old, to, name, 0)
	return sysErr("linkat", m.handled(from, old, err, func(fd int) error {
		return unix.Linkat(unix.AT_FDCWD, handlePath(fd), to, name, unix.AT_SYMLINK_FOLLOW)
	}))
}

// copyData copies a file and leaves its holes.
func (m *merger) copyData(src, dst int, size int64) error {
	for pos := int64(0); pos < size; {
		start, err := unix.Seek(src, pos, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole to the end
		}
		end := size
		switch err {
		case nil:
			if e, err := unix.Seek(src, start, unix.SEEK_HOLE); err == nil {
				end = min(e, size)
			}
		case unix.EINVAL, unix.EOPNOTSUPP:
			start = pos
		default:
			return sysErr("lseek", err)
		}
		for pos = start; pos < end; {
			if err := m.ctx.Err(); err != nil {
				return context.Cause(m.ctx)
			}
			n, err := unix.Pread(src, m.buf[:min(int64(len(m.buf)), end-pos)], pos)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return sysErr("pread", err)
			}
			if n == 0 {
				return io.ErrUnexpectedEOF
			}
			if m.budget != nil {
				if err := m.budget.addBytes(int64(n)); err != nil {
					return err
				}
			}
			if err := pwriteAll(dst, m.buf[:n], pos); err != nil {
				return err
			}
			pos += int64(n)
		}
	}
	return sysErr("ftruncate", unix.Ftruncate(dst, size))
}

// special makes a link, a node or a pipe like that in a layer.
func (m *merger) special(from, to int, name string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := readlinkAt(from, name)
		err = m.handled(from, name, err, func(fd int) error { target, err = readlinkAt(fd, ""); return err })
		if err != nil {
			return sysErr("readlinkat", err)
		}
		if err := unix.Symlinkat(target, to, name); err != nil {
			return sysErr("symlinkat", err)
		}
	} else if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
		return sysErr("mknodat", err)
	}
	if m.owners {
		if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return sysErr("fchownat", err)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, name, m.mode(st), 0); err != nil {
			return sysErr("fchmodat", err)
		}
	}
	return sysErr("utimensat", unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}
