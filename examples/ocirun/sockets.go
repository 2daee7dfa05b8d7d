package main

import "golang.org/x/sys/unix"

// isInherited reports whether the caller handed over a descriptor.
func isInherited(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}
