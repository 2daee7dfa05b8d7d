package image

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// flatten moves what is deeper than limit below dir up into dir itself, until nothing is. It is for trees that are to be removed.
func flatten(dir string, limit int) error {
	for n := 0; ; {
		if moved, err := flattenOnce(dir, limit, &n); err != nil || !moved {
			return err
		}
	}
}

// flattenOnce moves up what is deeper now, and reports whether anything was; n is how many were moved before.
func flattenOnce(dir string, limit int, n *int) (moved bool, err error) {
	top, err := openTreeDir(dir)
	if err != nil {
		return false, err
	}
	defer unix.Close(top)
	fd, err := openTreeDir(dir)
	if err != nil {
		return false, err
	}
	err = flattenAt(fd, top, limit, n, &moved)
	return moved, err
}

// flattenAt takes a directory and closes it.
func flattenAt(fd, top, limit int, n *int, moved *bool) error {
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := statAt(fd, name)
		if err != nil {
			return sysErr("fstatat", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if limit == 0 {
			for err = unix.EEXIST; err == unix.EEXIST; *n++ {
				err = unix.Renameat2(fd, name, top, "deep-"+strconv.Itoa(*n), unix.RENAME_NOREPLACE)
			}
			if err != nil {
				return sysErr("renameat2", err)
			}
			*moved = true
			continue
		}
		sub, err := openSub(fd, name)
		if err != nil {
			return sysErr("openat", err)
		}
		if err := flattenAt(sub, top, limit-1, n, moved); err != nil {
			return err
		}
	}
	return nil
}
