package rootfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// Bounds of RemoveAll: descriptors held at once, and passes over a directory in which an attacker keeps making
// files.
const (
	removeDepth  = 64
	removePasses = 64
)

// RemoveAll removes path and everything below it. A symbolic link is removed and not followed; a path that is
// not there is no error. It does not enter other mounts (EXDEV): what is mounted inside a container may be a
// directory of the host. Trees of any depth are removed with at most 64 descriptors.
func (r *Root) RemoveAll(path string) error {
	err := r.inParent("remove", path, unix.EINVAL, func(dir int, name string) error {
		mount, err := mountOf(dir, "")
		if err != nil {
			return err
		}
		rm := &remover{top: dir, mount: mount}
		return rm.all(name)
	})
	if isGone(err) {
		return nil
	}
	return err
}

// remover removes trees below the directory top. What lies deeper than removeDepth is first moved up into top
// under a new name, and removed from there.
type remover struct {
	top    int
	mount  mountID
	moved  []string
	number int
}

func (rm *remover) all(name string) error {
	rm.moved = []string{name}
	for len(rm.moved) > 0 {
		n := len(rm.moved) - 1
		name, rm.moved = rm.moved[n], rm.moved[:n]
		if err := rm.remove(rm.top, name, 0); err != nil {
			return err
		}
	}
	return nil
}

func (rm *remover) remove(dir int, name string, depth int) error {
	for range removePasses {
		err := removeOne(dir, name)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.ENOTEMPTY && err != unix.EEXIST {
			return err
		}
		if depth >= removeDepth {
			return rm.moveUp(dir, name)
		}
		if err := rm.empty(dir, name, depth); err != nil && err != unix.ENOENT && err != unix.ENOTDIR && err != unix.ELOOP {
			return err
		}
	}
	return unix.ENOTEMPTY
}

// moveUp puts a deep directory into top, to be removed later.
func (rm *remover) moveUp(dir int, name string) error {
	for range maxAgain {
		rm.number++
		to := fmt.Sprintf(".caisson-remove-%d-%d", os.Getpid(), rm.number)
		err := unix.Renameat2(dir, name, rm.top, to, unix.RENAME_NOREPLACE)
		switch err {
		case nil:
			rm.moved = append(rm.moved, to)
			return nil
		case unix.ENOENT:
			return nil
		case unix.EEXIST:
		default:
			return err
		}
	}
	return unix.EEXIST
}

// empty removes what is in a directory once.
func (rm *remover) empty(dir int, name string, depth int) error {
	fd, err := openatFD(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if mount, err := mountOf(fd, ""); err != nil || mount != rm.mount {
		return orErrno(err, unix.EXDEV)
	}
	for {
		names, err := f.Readdirnames(1024)
		for _, n := range names {
			if err := linux.Control(f, func(fd int) error { return rm.remove(fd, n, depth+1) }); err != nil {
				return err
			}
		}
		if err != nil {
			return ignoreEOF(err)
		}
	}
}

func orErrno(err error, errno unix.Errno) error {
	if err != nil {
		return err
	}
	return errno
}

func ignoreEOF(err error) error {
	if isEOF(err) {
		return nil
	}
	return err
}

// mountID tells mounts apart: by their number from Linux 5.8, by the device before.
type mountID struct {
	mount        uint64
	major, minor uint32
}

func mountOf(dir int, name string) (id mountID, err error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	err = linux.Retry(func() error { return unix.Statx(dir, name, flags, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st) })
	if err != nil {
		return id, err
	}
	id = mountID{major: st.Dev_major, minor: st.Dev_minor}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		id = mountID{mount: st.Mnt_id}
	}
	return id, nil
}
