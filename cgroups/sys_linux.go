package cgroups

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The kernel files of a group are opened, used once and closed, thousands of times in a program's life: bare
// descriptors, no os.File with its finalizer and poller registration.

// openAt opens name below dirfd, close-on-exec.
func openAt(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openDir opens a directory as a place only. The fd also serves CLONE_INTO_CGROUP.
func openDir(dirfd int, name string) (int, error) {
	return openAt(dirfd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// writeAt writes value to the file in one write, as the kernel's files need it. Lowering a memory limit makes the
// kernel reclaim, which a signal interrupts, and Go's preemption sends signals: EINTR is tried again.
func writeAt(dirfd int, name, value string) error {
	fd, err := openAt(dirfd, name, unix.O_WRONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeFD(fd, value)
}

func writeFD(fd int, value string) error {
	var small [64]byte // enough for every number: no allocation
	b := append(small[:0], value...)
	for {
		n, err := unix.Write(fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n != len(b):
			return io.ErrShortWrite
		default:
			return nil
		}
	}
}

// maxFile bounds what is read from one file. cgroup.procs of a group with 4 million processes has 32 MB; others are
// a few kilobytes.
const maxFile = 64 << 20

// wholeFile: the kernel fills a page before it cuts a file, so a first read that is shorter than half of one had all of
// it, and the read that would find the end is saved.
const wholeFile = 2048

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 8192)} }}

// A buffer holds the text of one file until it is reused.
type buffer struct{ b []byte }

// readAt reads the whole file; the text is valid until the next use of b.
func (b *buffer) readAt(dirfd int, name string) ([]byte, error) {
	fd, err := openAt(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for {
		if n == len(b.b) {
			if n >= maxFile {
				return nil, unix.EFBIG
			}
			b.b = append(b.b, make([]byte, n)...)
		}
		k, err := unix.Read(fd, b.b[n:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case k == 0 || n == 0 && k < wholeFile:
			return b.b[:n+k], nil
		default:
			n += k
		}
	}
}

// free gives the buffer back, unless it grew so far that keeping it would cost.
func (b *buffer) free() {
	if len(b.b) <= 64<<10 {
		buffers.Put(b)
	}
}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// readText reads a whole file as a string of its own.
func readText(dirfd int, name string) (string, error) {
	b := newBuffer()
	defer b.free()
	text, err := b.readAt(dirfd, name)
	return string(text), err
}

// writable says whether this process may write to a path, by its effective ids.
func writable(path string, mode uint32) error {
	return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
}

// rmdir removes one group's directory. Gone is as good as removed.
func rmdir(path string) error {
	for {
		err := unix.Rmdir(path)
		switch err {
		case unix.EINTR:
		case unix.ENOENT:
			return nil
		default:
			return err
		}
	}
}

// onCgroupFS says whether fd is on a cgroup file system of that version: a mount table can lie by over-mounting.
func onCgroupFS(fd, version int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	want := int64(unix.CGROUP2_SUPER_MAGIC)
	if version == 1 {
		want = unix.CGROUP_SUPER_MAGIC
	}
	if int64(st.Type) != want {
		return unix.ENOTSUP
	}
	return nil
}

// isGone knows the answers about a group that was removed while its directory or file was open.
func isGone(err error) bool { return err == unix.ENOENT || err == unix.ENODEV }
