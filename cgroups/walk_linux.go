package cgroups

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// childNames lists the groups directly below a directory.
func childNames(dirfd int) ([]string, error) {
	fd, err := openAt(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// hasChildren needs one fstat: a group's link count is 2 and one more for each child.
func hasChildren(dirfd int) bool {
	var st unix.Stat_t
	return unix.Fstatat(dirfd, "", &st, unix.AT_EMPTY_PATH) != nil || st.Nlink > 2
}

// postorder calls f for every group below and then for the directory itself, with its fd and path. Groups that
// vanish meanwhile are passed over.
func postorder(dirfd int, dir string, f func(fd int, dir string) error) error {
	var names []string
	if hasChildren(dirfd) {
		var err error
		if names, err = childNames(dirfd); err != nil {
			return &Error{Op: "list", Path: dir, Err: err}
		}
	}
	var fault error
	for _, name := range names {
		fd, err := openDir(dirfd, name)
		if err == unix.ENOENT {
			continue
		}
		if err == nil {
			err = postorder(fd, dir+"/"+name, f)
			unix.Close(fd)
		}
		if fault == nil {
			fault = err
		}
	}
	if fault != nil {
		return fault
	}
	return f(dirfd, dir)
}
