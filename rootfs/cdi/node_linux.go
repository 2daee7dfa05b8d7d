package cdi

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// nodeOf tells type and number of a device node of the host.
func nodeOf(path string) (typ string, major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", 0, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	major, minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return "c", major, minor, nil
	case unix.S_IFBLK:
		return "b", major, minor, nil
	}
	return "", 0, 0, fmt.Errorf("%w: %s is no device node", ErrInvalid, path)
}
