package rootfs

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// maxAgain is how often openat2 is repeated when a rename met a ".."; an attacker who renames in a loop must
// not hold the caller for ever.
const maxAgain = 128

// openFD opens path beneath root as a chrooted process would, and returns a bare descriptor and errno.
func (r *Root) openFD(root int, path string, flags int, mode uint32) (int, error) {
	if len(path) > maxPath {
		return -1, unix.ENAMETOOLONG
	}
	if flags&unix.O_CREAT == 0 && flags&unix.O_TMPFILE != unix.O_TMPFILE {
		mode = 0 // openat2 refuses a mode that has no use
	}
	if r.actor != nil {
		return r.actor.Open(root, path, flags, mode, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	}
	if r.noOpenat2 {
		return walkOpen(root, path, flags, mode)
	}
	fd, err := openat2InRoot(root, path, flags, mode)
	if err == unix.ENOSYS || err == unix.EPERM && openat2Forbidden(root) {
		return walkOpen(root, path, flags, mode)
	}
	return fd, err
}

func openat2InRoot(root int, path string, flags int, mode uint32) (int, error) {
	how := linux.OpenHow{Flags: flags, Mode: mode, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for try := 1; ; try++ {
		fd, err := linux.Openat2FD(root, path, how)
		if err != unix.EAGAIN || try == maxAgain {
			return fd, err
		}
	}
}

// openat2Forbidden tells the EPERM of a seccomp filter from the EPERM of a file: the root itself can always be
// had as a handle. The answer is not kept, because a filter can come later and differs between threads.
func openat2Forbidden(root int) bool {
	fd, err := openat2InRoot(root, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err == unix.EPERM || err == unix.ENOSYS
	}
	unix.Close(fd)
	return false
}

// parentFD opens the directory in which the last component of path is, for calls that act on a name. dir makes
// it accept trailing slashes. A path that has no last name, such as "/" or "a/..", is noName.
func (r *Root) parentFD(root int, path string, noName error) (int, string, error) {
	dir, name := splitName(path)
	switch {
	case path == "":
		return -1, "", unix.ENOENT
	case len(path) > maxPath:
		return -1, "", unix.ENAMETOOLONG
	case name == "" || name == "." || name == "..":
		return -1, "", noName
	}
	fd, err := r.openFD(root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return fd, name, err
}

// splitName splits off the last component; slashes after it are dropped.
func splitName(path string) (dir, name string) {
	path = strings.TrimRight(path, "/")
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ".", path
	}
	return path[:i+1], path[i+1:]
}
