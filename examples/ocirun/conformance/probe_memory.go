package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// policy asks for the NUMA memory policy: get_mempolicy(2).
func policy(mode *int) (int, error) {
	var m int32
	_, _, errno := unix.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&m)), 0, 0, 0, 0, 0)
	*mode = int(m)
	if errno != 0 {
		return 0, errno
	}
	return *mode, nil
}
