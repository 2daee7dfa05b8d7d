package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// describe makes entries of names in an open directory; names that are gone are left out.
func describe(dir *os.File, names []string) ([]fs.DirEntry, error) {
	entries := make([]fs.DirEntry, 0, len(names))
	err := linux.Control(dir, func(fd int) error {
		for _, name := range names {
			info, err := lstatAt(fd, name)
			if isGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			entries = append(entries, fs.FileInfoToDirEntry(info))
		}
		return nil
	})
	return entries, err
}

func lstatAt(dir int, name string) (fs.FileInfo, error) {
	var st unix.Stat_t
	err := linux.Retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return nil, err
	}
	return newFileInfo(name, &st), nil
}

// readNames reads the next n entries of an open directory, described; at the end it is io.EOF.
func readNames(dir *os.File, n int) ([]fs.DirEntry, error) {
	for {
		names, err := dir.Readdirnames(n)
		entries, derr := describe(dir, names)
		if derr != nil {
			return nil, derr
		}
		if err != nil || len(entries) > 0 {
			return entries, err
		}
	}
}

// statOpen describes an open file.
func statOpen(f *os.File, name string) (fs.FileInfo, error) {
	var st unix.Stat_t
	err := linux.Control(f, func(fd int) error { return unix.Fstat(fd, &st) })
	if err != nil {
		return nil, err
	}
	return newFileInfo(name, &st), nil
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
