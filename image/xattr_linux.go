package image

import (
	"archive/tar"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

const (
	xattrCaps       = "security.capability"
	xattrACL        = "system.posix_acl_access"
	xattrDefaultACL = "system.posix_acl_default"
)

// mayXattr says which extended attributes of an image are set. Those of overlayfs would let a layer redirect
// lookups or pass for a whiteout; other trusted ones are the administrator's; labels and checksums of security modules belong to the
// machine that made the image.
func (a *applier) mayXattr(name string) bool { return a.policy.mayXattr(name) }

func (p Policy) mayXattr(name string) bool {
	switch {
	case name == xattrCaps:
		return !p.NoSetuid
	case strings.HasPrefix(name, "user."):
		return !strings.HasPrefix(name, "user.overlay.")
	}
	return name == xattrACL || name == xattrDefaultACL
}

func hasXattrs(hdr *tar.Header) bool {
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, xattrRecord) {
			return true
		}
	}
	return false
}

// xattrs sets the attributes of an entry. What is not set is counted.
func (a *applier) xattrs(hdr *tar.Header, set func(name string, value []byte) error) error {
	for k, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrRecord)
		if !ok {
			continue
		}
		if !a.mayXattr(name) {
			a.mark.Xattrs++
			continue
		}
		if a.givenXattr(name) {
			continue // see noteGift
		}
		if err := a.notedXattr(name, v, set(name, []byte(v))); err != nil {
			return err
		}
	}
	return nil
}

// notedXattr judges what came of setting an attribute.
func (a *applier) notedXattr(name, value string, err error) error {
	switch err {
	case nil:
		return nil
	case unix.EPERM, unix.ENOTSUP, unix.EINVAL: // capabilities without privilege; users' attributes of links and devices; ids that are not mapped
		a.mark.Xattrs++
		return nil
	case unix.E2BIG, unix.ERANGE, unix.ENOSPC, unix.ENAMETOOLONG:
		return because(ErrBadHeader, "extended attribute %q of %d bytes: %v", clip(name), len(value), err)
	}
	return os.NewSyscallError("setxattr", err)
}

// dropXattrs takes away what a directory of a lower layer has, or what a file inherited of one: an entry stands for itself.
func (a *applier) dropXattrs(fd int) error {
	names, err := (&treeFile{fd: fd}).xattrs()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !a.mayXattr(name) {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA {
			return os.NewSyscallError("fremovexattr", err)
		}
	}
	return nil
}

// setxattrAt sets an attribute of what cannot be opened otherwise. The link in /proc leads to the file itself, symbolic link or not.
func setxattrAt(at place, name string, value []byte) error {
	return byHandle(at, func(path string) error { return unix.Setxattr(path, name, value, 0) })
}

// dropACLAt is dropXattrs for what cannot be opened otherwise: the access list is all that it inherits.
func dropACLAt(at place) error {
	err := byHandle(at, func(path string) error { return unix.Removexattr(path, xattrACL) })
	if err == unix.ENODATA || err == unix.ENOTSUP {
		return nil
	}
	return sysErr("removexattr", err)
}

func byHandle(at place, do func(path string) error) error {
	fd, err := linux.RetryFD(func() (int, error) {
		return unix.Openat(at.dir, at.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(handlePath(fd))
}

// futimens sets the times of an open file, which package unix can do by name only.
func futimens(fd int, atime, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{atime, mtime}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("utimensat", errno)
	}
	return nil
}

// sysErr names the call, and leaves nil as it is.
func sysErr(call string, err error) error {
	if err == nil {
		return nil
	}
	return os.NewSyscallError(call, err)
}
