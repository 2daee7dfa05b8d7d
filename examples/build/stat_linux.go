package main

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// nodeOf takes what an fs.FileInfo of a file on disk knows.
func nodeOf(info fs.FileInfo) *node {
	n := &node{mode: info.Mode(), size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		n.uid, n.gid = int(st.Uid), int(st.Gid)
		n.major, n.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
		if st.Nlink > 1 && n.mode.IsRegular() {
			n.ino = inode{st.Dev, st.Ino}
		}
	}
	return n
}
