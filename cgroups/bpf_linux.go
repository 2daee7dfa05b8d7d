package cgroups

import (
	"bytes"
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The commands of bpf(2) that device programs need, each with the part of union bpf_attr that it reads.

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch e {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN: // the verifier was interrupted by a signal; Go's preemption sends them
		default:
			return -1, e
		}
	}
}

// bpfName is what the programs of this package are called: by it a group's own is found again.
var bpfName = [16]byte{'c', 'a', 'i', 's', 's', 'o', 'n', '_', 'd', 'e', 'v'}

// bpfLoad hands a program to the kernel, which verifies it.
func bpfLoad(code []byte) (int, error) {
	license := []byte("Apache-2.0\x00")
	attr := struct {
		progType, insnCount       uint32
		insns, license            uint64
		logLevel, logSize         uint32
		logBuf                    uint64
		kernVersion, flags        uint32
		name                      [16]byte
		ifindex, expectAttachType uint32
	}{progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, insnCount: uint32(len(code) / 8),
		insns: address(code), license: address(license), name: bpfName, expectAttachType: unix.BPF_CGROUP_DEVICE}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	return fd, err // close-on-exec: the kernel makes it so
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// bpfAttach attaches a program to a group, beside others or, if replace is a descriptor, in the place of one (Linux 5.6).
func bpfAttach(group, prog, replace int) error {
	attr := struct{ target, prog, attachType, flags, replace uint32 }{
		uint32(group), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
	if replace >= 0 {
		attr.flags |= unix.BPF_F_REPLACE
		attr.replace = uint32(replace)
	}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func bpfDetach(group, prog int) error {
	attr := struct{ target, prog, attachType, flags uint32 }{uint32(group), uint32(prog), unix.BPF_CGROUP_DEVICE, 0}
	_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// bpfAttached opens the programs of this package that a group itself has, not those of groups above.
func bpfAttached(group int) (fds []int, err error) {
	var ids [64]uint32 // the most that the kernel lets a group have
	attr := struct {
		target, attachType, queryFlags, attachFlags uint32
		ids                                         uint64
		count, pad                                  uint32
	}{target: uint32(group), attachType: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids))), count: uint32(len(ids))}
	if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return nil, err
	}
	for _, id := range ids[:min(int(attr.count), len(ids))] {
		fd, err := bpfOpen(id)
		if errors.Is(err, unix.ENOENT) { // gone meanwhile
			continue
		}
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		if bpfIsOurs(fd) {
			fds = append(fds, fd)
		} else {
			unix.Close(fd)
		}
	}
	runtime.KeepAlive(&ids)
	return fds, nil
}

func bpfOpen(id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	return bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// bpfIsOurs reads the name of a program, which is 64 bytes into struct bpf_prog_info.
func bpfIsOurs(fd int) bool {
	var info [80]byte
	attr := struct {
		fd, length uint32
		info       uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&info)
	return err == nil && bytes.Equal(info[64:80], bpfName[:])
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
