package rootfs

import (
	"io/fs"
	"os"
	"slices"
)

// Layout is everything a container sees as its filesystem.
type Layout struct {
	// Root is the root filesystem.
	Root *Description
	// Mounts are attached in this order.
	Mounts []Mount
	// Devices and Links are made in the tmpfs that Mounts has at /dev.
	Devices []Device
	Links   []Link
	// Dev is attached as that tmpfs, with the devices and links that were made in it already; see [DevTree.Fits]. It cannot be with
	// Env.UserNamespace, where device nodes are the host's.
	Dev *DevTree
	// Files are written after all mounts are in place.
	Files []File
	// MaskedPaths are covered, files by /dev/null and directories by an empty one. Missing ones are ignored.
	MaskedPaths []string
	// ReadOnlyPaths are made read-only with all that is below them. Missing ones are ignored.
	ReadOnlyPaths []string
	// ReadOnly makes the root mount read-only at the end. Other mounts stay as they are.
	ReadOnly bool
	// Propagation of the root mount. With Slave, mounts that the container makes stay inside as with
	// Private; with Shared they pass to mount namespaces made from the container's. Default: Private.
	Propagation Propagation
}

// File is a regular file put into the container before it starts. It replaces a file or symbolic link of that
// name; missing parent directories are made (mode 0755).
type File struct {
	// Path is absolute, in the container. Its parents are looked up inside the root.
	Path string
	// Data is its content. Large contents go into Content.
	Data []byte
	// Content is read instead of Data, Size bytes from offset Offset on. The caller keeps it open until the
	// container is started.
	Content *os.File
	// Offset and Size say which part of Content.
	Offset, Size int64
	// Mode holds the permission bits, set-user-ID and sticky bits.
	Mode fs.FileMode
	// Dir makes a directory, and Link a symbolic link with this content, instead of a regular file.
	Dir  bool
	Link string
	// UID and GID own the file, as numbers inside the container.
	UID, GID uint32
}

// DefaultLayout is the layout of a contained process: root with /proc, /sys (read-only), /dev, /dev/pts,
// /dev/shm, /dev/mqueue and /sys/fs/cgroup (read-only), the default devices and links, and the usual paths
// masked or made read-only.
func DefaultLayout(root *Description) *Layout {
	return &Layout{
		Root: root, Mounts: DefaultMounts(), Devices: DefaultDevices(), Links: DefaultLinks(),
		MaskedPaths: DefaultMaskedPaths(), ReadOnlyPaths: DefaultReadOnlyPaths(),
	}
}

// DefaultMounts are proc, dev, devpts, shm (64 MiB), mqueue, sysfs and cgroup, the last two read-only.
func DefaultMounts() []Mount {
	const contained = NoSuid | NoDev | NoExec
	return []Mount{
		{Type: TypeProc, Source: "proc", Target: "/proc", Set: contained},
		{Type: TypeTmpfs, Source: "tmpfs", Target: "/dev", Set: NoSuid | StrictAtime, Mode: 0o755, Size: 64 << 20},
		{Type: TypeDevpts, Source: "devpts", Target: "/dev/pts", Set: NoSuid | NoExec},
		{Type: TypeTmpfs, Source: "shm", Target: "/dev/shm", Set: contained, Size: 64 << 20},
		{Type: TypeMqueue, Source: "mqueue", Target: "/dev/mqueue", Set: contained},
		{Type: TypeSysfs, Source: "sysfs", Target: "/sys", Set: contained | ReadOnly},
		{Type: TypeCgroup, Source: "cgroup", Target: "/sys/fs/cgroup", Set: contained | ReadOnly},
	}
}

// MinimalMounts are proc, read-only and of processes only, dev, and shm (64 MiB): for programs that need to know nothing of
// the machine and its settings, and sooner made than [DefaultMounts]. There are no terminals, no sysfs and no cgroup.
// Needs Linux 5.8 ([Mount].ProcessesOnly).
func MinimalMounts() []Mount {
	all := DefaultMounts()
	all[0].ProcessesOnly, all[0].Set = true, all[0].Set|ReadOnly
	return slices.DeleteFunc(all, func(m Mount) bool { return !slices.Contains([]string{"/proc", "/dev", "/dev/shm"}, m.Target) })
}

// processesOnly says that the procfs on top shows processes only.
func processesOnly(mounts []Mount) (only bool) {
	for i := range mounts {
		if mounts[i].Type == TypeProc {
			only = mounts[i].ProcessesOnly
		}
	}
	return only
}

// DefaultMaskedPaths are files and directories of /proc and /sys that tell about the host or reach its
// hardware.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/sched_debug", "/proc/scsi", "/proc/slabinfo", "/proc/timer_list",
		"/proc/timer_stats", "/proc/vmallocinfo", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// DefaultReadOnlyPaths are the parts of /proc through which the kernel takes settings.
func DefaultReadOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
