package rootfs

import (
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fileInfo is fs.FileInfo from a descriptor; os makes one only from a name.
type fileInfo struct {
	name string
	st   unix.Stat_t
}

func newFileInfo(name string, st *unix.Stat_t) fs.FileInfo { return &fileInfo{name, *st} }

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.st.Size }
func (i *fileInfo) Mode() fs.FileMode  { return goMode(i.st.Mode) }
func (i *fileInfo) ModTime() time.Time { return time.Unix(i.st.Mtim.Unix()) }
func (i *fileInfo) IsDir() bool        { return i.Mode().IsDir() }

// Sys is a *syscall.Stat_t, as that of os is.
func (i *fileInfo) Sys() any {
	ts := func(t unix.Timespec) syscall.Timespec { return syscall.Timespec{Sec: t.Sec, Nsec: t.Nsec} }
	return &syscall.Stat_t{
		Dev: i.st.Dev, Ino: i.st.Ino, Nlink: i.st.Nlink, Mode: i.st.Mode, Uid: i.st.Uid, Gid: i.st.Gid,
		Rdev: i.st.Rdev, Size: i.st.Size, Blksize: i.st.Blksize, Blocks: i.st.Blocks,
		Atim: ts(i.st.Atim), Mtim: ts(i.st.Mtim), Ctim: ts(i.st.Ctim),
	}
}

// modeTypes pairs the file types of stat(2) and fs.
var modeTypes = map[uint32]fs.FileMode{
	unix.S_IFREG: 0, unix.S_IFDIR: fs.ModeDir, unix.S_IFLNK: fs.ModeSymlink, unix.S_IFIFO: fs.ModeNamedPipe,
	unix.S_IFSOCK: fs.ModeSocket, unix.S_IFBLK: fs.ModeDevice, unix.S_IFCHR: fs.ModeDevice | fs.ModeCharDevice,
}

func goMode(mode uint32) fs.FileMode {
	typ, ok := modeTypes[mode&unix.S_IFMT]
	if !ok {
		typ = fs.ModeIrregular
	}
	m := fs.FileMode(mode&0o777) | typ
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// unixMode is the permission part of a mode.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	return mode
}
