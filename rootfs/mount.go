package rootfs

import (
	"io/fs"
	"os"
	"reflect"
)

// MountType is the kind of filesystem a [Mount] attaches. The zero MountType is refused.
type MountType int

const (
	// TypeBind shows a file or directory of the host.
	TypeBind MountType = iota + 1
	// TypeTmpfs is an empty filesystem in memory (tmpfs(5)).
	TypeTmpfs
	// TypeProc is procfs of the container's pid namespace (proc(5)). Its target can only be /proc.
	TypeProc
	// TypeSysfs is sysfs of the container's network namespace (sysfs(5)). Its target can only be /sys.
	TypeSysfs
	// TypeMqueue holds the POSIX message queues of the container's ipc namespace (mq_overview(7)).
	TypeMqueue
	// TypeCgroup is the cgroup filesystem as seen from the container's cgroup namespace, version 1 or 2 as
	// [CgroupView] says.
	TypeCgroup
	// TypeDevpts is a new instance of the pseudo-terminal filesystem (devpts).
	TypeDevpts
	// TypeOverlay is a stack of directories of the host (overlayfs).
	TypeOverlay
	// TypeRemount mounts nothing: it changes the attributes of what has been mounted on Target, by an earlier mount of the
	// list or of the root filesystem, to those of Set and Clear. Others stay, as do the options of the filesystem as a whole. A
	// target on which nothing is mounted is an error of the start. Linux 5.12.
	TypeRemount
)

var typeNames = [...]string{"", "bind", "tmpfs", "proc", "sysfs", "mqueue", "cgroup", "devpts", "overlay", "remount"}

// String returns the name of the filesystem, "bind" for TypeBind and "remount" for TypeRemount.
func (t MountType) String() string {
	if t <= 0 || int(t) >= len(typeNames) {
		return "unknown"
	}
	return typeNames[t]
}

// MountFlags are the attributes of one mount; see mount_setattr(2).
type MountFlags uint32

const (
	// ReadOnly refuses every write through the mount.
	ReadOnly MountFlags = 1 << iota
	// NoSuid ignores set-user-ID and set-group-ID bits and file capabilities.
	NoSuid
	// NoDev makes device nodes unusable.
	NoDev
	// NoExec refuses to execute programs.
	NoExec
	// NoSymFollow refuses to follow symbolic links. Linux 5.14.
	NoSymFollow
	// NoDirAtime leaves access times of directories alone.
	NoDirAtime
	// Relatime updates access times rarely; the kernel's default. Excludes NoAtime and StrictAtime.
	Relatime
	// NoAtime never updates access times.
	NoAtime
	// StrictAtime always updates access times.
	StrictAtime

	atimes   = Relatime | NoAtime | StrictAtime
	allFlags = StrictAtime<<1 - 1
)

// Propagation says whether mounts and unmounts below a mount pass between mount namespaces; see
// mount_namespaces(7), "Shared subtrees".
type Propagation int

const (
	// Private passes nothing, either way. The default.
	Private Propagation = iota
	// Slave receives what happens on the host and passes nothing to it.
	Slave
	// Shared passes both ways. Mounts made inside the container then appear on the host; it is refused for
	// containers in a user namespace, where the kernel makes it Slave.
	Shared
	// Unbindable is private and cannot be the source of a bind mount.
	Unbindable
)

// HidePID says what an ordinary user learns in /proc about the processes of others; see proc(5), "hidepid". It concerns
// one mount since Linux 5.8, before that the PID namespace.
type HidePID int

const (
	// HideNothing shows all that every user may see. The default.
	HideNothing HidePID = iota
	// HideContents closes the directories of others' processes.
	HideContents
	// HideProcesses leaves others' processes out.
	HideProcesses
	_
	// HideUntraceable leaves out the processes that the caller may not trace (ptrace(2)), whoever owns them. Since Linux 5.8.
	HideUntraceable
)

// Mount is one filesystem attached below the root. Targets are looked up inside the root: no symbolic link,
// no "..", and no link of /proc leads out of it. A target that is missing is made, with its parents: a
// directory (mode 0755), or an empty file where the source of a bind is a file.
type Mount struct {
	Type MountType
	// Target is the absolute path in the container.
	Target string
	// Source is the absolute path on the host for TypeBind. For other types it is only the name that the
	// container reads in /proc/self/mountinfo.
	Source string
	// File is an open file or directory to be used for TypeBind instead of Source (O_PATH is enough). The
	// caller keeps it open until the container is started.
	File *os.File
	// Set are the attributes of the mount. None means those of the source for TypeBind, set-user-ID bits and device
	// nodes included: [BindMount] and [ReadOnlyBindMount] take these away.
	Set MountFlags
	// Clear are attributes removed from a bind mount, which otherwise has those of its source.
	Clear MountFlags
	// SetAll and ClearAll apply to the mounts below as well (TypeBind with Recursive).
	SetAll, ClearAll MountFlags
	// Recursive includes the mounts below Source (TypeBind).
	Recursive bool
	// Propagation of the mount and, with Recursive, of those below. Default: Private.
	Propagation Propagation
	// PropagationTop restricts Propagation to the mount itself; those below it are Private.
	PropagationTop bool
	// IDMap maps the owners of files on the host to those with the same number inside the container, for
	// the mount only (MappedTop) or for those below as well (MappedAll). Needs Env.IDMap or IDMapFile;
	// Linux 5.12 and a filesystem that allows it.
	IDMap IDMapping
	// IDMapFile is an open user namespace whose maps are used instead of Env.IDMap.
	IDMapFile *os.File

	// Size limits TypeTmpfs, in bytes; zero means the kernel's default, half of the memory.
	Size int64
	// Inodes limits the number of files of TypeTmpfs; zero means the kernel's default.
	Inodes int64
	// Mode holds the permission bits of the root of TypeTmpfs (default 01777) and of terminals of
	// TypeDevpts (default 0620). The sticky bit is fs.ModeSticky.
	Mode fs.FileMode
	// UID and GID own the root of TypeTmpfs. For TypeDevpts GID owns the terminals; zero means group 5
	// where it is mapped. From members of the group GID, TypeProc hides nothing.
	UID, GID uint32
	// HidePID says what TypeProc shows of the processes of others.
	HidePID HidePID
	// ProcessesOnly leaves out of TypeProc all that is not a process: what tells about the machine (cpuinfo, meminfo, stat
	// and so on) and its settings (sys), so that nothing is masked (proc(5), "subset=pid"). Since Linux 5.8; older
	// ones refuse the mount (EINVAL). Programs that ask /proc for the machine's memory or processors must do without.
	// A command that may make user namespaces (without the default seccomp profile) can mount a whole procfs in one, which
	// masks would prevent: with ReadOnly among Set it cannot be written either.
	ProcessesOnly bool

	// Lower are the layers of TypeOverlay, the topmost first: absolute paths on the host.
	Lower []string
	// Upper and Work are the upper layer of TypeOverlay and its work directory, two directories of one
	// filesystem; both empty make it read-only.
	Upper, Work string
	// Volatile is as in [Upper].
	Volatile bool

	// Writing says when TypeTmpfs writes.
	Writing Writing

	// Label is the SELinux label that every file of TypeTmpfs, TypeDevpts and TypeOverlay has (mount(8), "context="), and
	// the directory itself of TypeMqueue, if the policy labels message queues, such as "system_u:object_r:container_file_t:s0:c1,c2"; at most 255 bytes. Empty: that of
	// [Env], or else what the policy says. A kernel without SELinux, a policy that has no such label, or one that does not
	// let the caller give it, refuses the mount.
	Label string
}

// same says that two mounts do not differ in any field.
func (m *Mount) same(o *Mount) bool {
	return m.File == o.File && m.IDMapFile == o.IDMapFile && reflect.DeepEqual(m, o)
}

// IDMapping says whether a bind mount is id-mapped.
type IDMapping int

const (
	// Unmapped leaves owners as they are on the host.
	Unmapped IDMapping = iota
	// MappedTop maps the mount itself.
	MappedTop
	// MappedAll maps the mounts below it as well.
	MappedAll
)

// BindMount shows source, a file or directory of the host, at target, not read-only, with the mounts below it.
// Device nodes and set-user-ID bits in it have no effect. Who may write is decided by owners and permissions as everywhere: in a
// container with a user namespace of other ids, the host's root or the caller may be nobody there. IDMap shows
// files to such a container with the owners that they have outside, where the caller is privileged.
func BindMount(source, target string) Mount {
	return Mount{Type: TypeBind, Source: source, Target: target, Recursive: true, SetAll: NoSuid | NoDev}
}

// ReadOnlyBindMount is BindMount that nothing can be written through, the mounts below it included.
func ReadOnlyBindMount(source, target string) Mount {
	m := BindMount(source, target)
	m.SetAll |= ReadOnly
	return m
}

// TmpfsMount is an empty filesystem in memory at target, of at most size bytes (zero: half of the memory),
// with mode 1777. What is written counts as memory of the container.
func TmpfsMount(target string, size int64) Mount {
	return Mount{Type: TypeTmpfs, Source: "tmpfs", Target: target, Size: size, Set: NoSuid | NoDev}
}

// OverlayMount is a stack of directories of the host at target, the topmost first, with changes in upper.
// work is an empty directory on the same filesystem as upper; the container's root user must be able to make directories in it, or the mount
// fails with EROFS. Both empty make it read-only.
func OverlayMount(target, upper, work string, lower ...string) Mount {
	return Mount{Type: TypeOverlay, Source: "overlay", Target: target, Upper: upper, Work: work, Lower: lower, Set: NoSuid | NoDev}
}
