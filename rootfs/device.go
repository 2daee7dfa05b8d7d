package rootfs

import "io/fs"

// Device is a device node below /dev.
type Device struct {
	// Path in the container, below /dev.
	Path string
	// Char tells a character device from a block device.
	Char bool
	// FIFO makes a named pipe instead, which has no number and no HostPath, in a user namespace too.
	FIFO bool
	// Major and Minor are its number.
	Major, Minor uint32
	// Mode holds its permission bits; zero means 0666.
	Mode fs.FileMode
	// UID and GID own it, as numbers inside the container.
	UID, GID uint32
	// HostPath is the node on the host that is shown where nodes cannot be made, that is, in a user
	// namespace. Empty means Path. Mode and owner are then those on the host.
	HostPath string
}

// Link is a symbolic link below /dev.
type Link struct {
	Path   string // in the container
	Target string // what it says
}

// DefaultDevices are the nodes that programs rely on, none of which gives access to hardware: null, zero,
// full, random, urandom and tty.
func DefaultDevices() []Device {
	c := func(name string, major, minor uint32) Device {
		return Device{Path: "/dev/" + name, Char: true, Major: major, Minor: minor}
	}
	return []Device{c("null", 1, 3), c("zero", 1, 5), c("full", 1, 7), c("random", 1, 8), c("urandom", 1, 9), c("tty", 5, 0)}
}

// DefaultLinks are the links of /dev: fd, stdin, stdout, stderr, ptmx and core.
func DefaultLinks() []Link {
	return []Link{
		{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"}, {"/dev/core", "/proc/kcore"},
	}
}
