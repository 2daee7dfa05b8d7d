package rootfs

import (
	"context"
	"os"
)

// Source supplies a root filesystem. [Dir], [Overlay], [Host], [HostAll] and [FD] make the sources of this
// package; an image store supplies others.
type Source interface {
	// Describe says what the root filesystem is made of, for a start in env. It mounts nothing. The caller
	// calls Close on the description when the container is gone, also when the start failed.
	//
	// ctx bounds the time it takes.
	Describe(ctx context.Context, env Env) (*Description, error)
}

// OwnerHider is implemented by sources that can tell, before they are asked to describe themselves, whether their
// description will have HideOwners set. Others are described twice when it has.
type OwnerHider interface {
	HidesOwners() bool
}

// Env is what is known about a start when its root filesystem is prepared.
type Env struct {
	// UserNamespace says that the container has a user namespace of its own.
	UserNamespace bool
	// Unprivileged says that the caller may not mount in its own mount namespace: every source is opened by
	// the container's first process, inside its new user and mount namespaces.
	Unprivileged bool
	// OwnIDs says that processes of the container run with the user id or the groups of the caller, as they
	// do where only a single id can be mapped.
	OwnIDs bool
	// RootUID and RootGID are the ids, outside, of the container's root user. They become the owner of
	// directories that are made on disk for it. Used only with UserNamespace and not Unprivileged.
	RootUID, RootGID int
	// MemoryMax is the memory limit of the container in bytes; zero where there is none.
	MemoryMax int64
	// IDMap is a user namespace whose id maps the root filesystem and the mounts that ask for it are mapped
	// with (mount_setattr(2), MOUNT_ATTR_IDMAP; Linux 5.12, overlay layers 5.19). Nil: no mapping. The
	// caller keeps it open until the start is over.
	IDMap *os.File
	// TTYGroup says that group 5 (tty) exists in the container's user namespace.
	TTYGroup bool
	// HostNetwork says that the container uses a network namespace that its user namespace does not own,
	// in which sysfs cannot be mounted; the caller's /sys is shown instead.
	HostNetwork bool
	// HostPIDs says the same of the pid namespace and procfs; the caller's /proc is shown instead, with what
	// is mounted below it.
	HostPIDs bool
	// IDMaps are the maps of the container's user namespace, as [namespaces.IDMaps.String] puts them; empty where it has none.
	IDMaps string
	// PIDNamespace is the name of the program's input that is the pid namespace whose processes procfs shows (Linux 6.17);
	// empty: that of the process that performs the program.
	PIDNamespace string
	// Cgroup says what a mount of type [TypeCgroup] shows.
	Cgroup CgroupView
	// MountLabel is the [Mount.Label] of every mount of [TypeTmpfs], [TypeDevpts] and [TypeOverlay] that has none, of the writable root,
	// of hidden directories and of the directory of a cgroup v1 hierarchy's links. Empty: what the SELinux policy says.
	MountLabel string
	// ScratchDir is a directory of the mount namespace in which the root filesystem is put together, covered
	// meanwhile. Empty: one that exists on this machine.
	ScratchDir string
	// EmptyNamespace says that the program enters a mount namespace after its sources have been opened in which
	// there is nothing but an empty read-only filesystem with the directory ScratchDir. Its root can then be covered
	// by the new one instead of being taken away, which is faster.
	EmptyNamespace bool
	// Features says what the kernel offers; see [Probe].
	Features Features
}

// CgroupView is the cgroup filesystem inside a container.
type CgroupView struct {
	// Version is 1 or 2; zero means that no cgroup filesystem is to be shown, and a mount that shows it is
	// left out.
	Version int
	// Hierarchies are the controller lists of the cgroup v1 hierarchies, such as "cpu,cpuacct" or
	// "name=systemd", as /proc/self/cgroup has them.
	Hierarchies []string
}

// Kind is how a root filesystem is put together. The zero Kind is refused.
type Kind int

const (
	// KindBind is one directory, shown as it is.
	KindBind Kind = iota + 1
	// KindOverlay is a stack of directories under an upper layer (overlayfs).
	KindOverlay
	// KindComposed is an empty tmpfs with directories placed in it.
	KindComposed
)

// Description is what a root filesystem is made of. It is data: whoever starts the container performs it.
// Sources return a new one for every start.
type Description struct {
	Kind Kind
	// Layers are the directories, the topmost first. KindBind has exactly one; KindComposed has none.
	Layers []Layer
	// Upper is where changes go. KindOverlay and KindComposed only.
	Upper Upper
	// Writable makes KindBind writable: the directory itself changes.
	Writable bool
	// Parts are what KindComposed shows, in the order in which it is made.
	Parts []Part
	// Masked are paths that must not be readable inside, besides those of the layout.
	Masked []string
	// HideOwners asks for a user namespace in which the ids of the host's files are not mapped, so that the
	// permissions for "other" apply to the container, its root user included. Nothing is id-mapped then.
	HideOwners bool
	// Unmapped leaves the owners of files as they are on disk, where they would be id-mapped otherwise: for directories
	// whose files belong to the ids that the user namespace maps.
	Unmapped bool
	// RootMode holds the permission bits of the root directory. Zero means 0755.
	RootMode uint32
	// Notes say, one sentence each, what differs here from what was asked for.
	Notes []string
	// Release frees what the source took. It may be nil.
	Release func() error
	// Origin names what the source is made of in terms of who made it, such as the digest of an image; all layers belong to that. It is
	// handed on by [View] and means nothing to this package.
	Origin string
	// EROFS says that the layers are files of EROFS as the store writes them: the change time of a file in them is that of its contents. It is
	// handed on by [View] and means nothing to this package.
	EROFS bool
}

// Close releases what the description holds. Closing twice is harmless.
func (d *Description) Close() error {
	if d == nil || d.Release == nil {
		return nil
	}
	release := d.Release
	d.Release = nil
	return release()
}

// Layer is one directory: either a path in the caller's mount namespace or an open file.
type Layer struct {
	// Path is absolute. Its symbolic links are followed.
	Path string
	// File is a directory opened with O_PATH or for reading, used instead of Path. It stays open until
	// the description is closed.
	File *os.File
	// Recursive includes the mounts below a KindBind layer. Layers of an overlay never include them.
	Recursive bool
}

// Upper is the writable layer of an overlay.
type Upper struct {
	// Dir is a directory on disk; its subdirectories "upper" and "work" are used and exist. Empty: the upper
	// layer is a tmpfs that vanishes with the container.
	Dir string
	// Size limits a tmpfs upper layer, in bytes. Zero means [DefaultUpperSize].
	Size int64
	// None makes the overlay read-only, without an upper layer.
	None bool
	// Volatile omits all syncs to an upper layer on disk (overlayfs option "volatile"): faster, and after a
	// crash of the machine the layer must be thrown away. Once used so, the layer cannot be mounted again
	// until the directory "incompat", which overlayfs leaves in its work directory, is removed.
	Volatile bool
}

// DefaultUpperSize is the size limit of a writable layer in memory where nothing else is said: 256 MiB. With
// a memory limit the default is half of that limit instead, if that is less. A file takes memory only as it
// is written.
const DefaultUpperSize = 256 << 20

// Part is one piece of a KindComposed root filesystem.
type Part struct {
	// Target is the absolute path at which it stands.
	Target string
	// Mode holds permission bits of the directory at Target; zero means 0755.
	Mode uint32
	// Link makes Target a symbolic link with this content.
	Link string
	// Layer is shown at Target under the common upper layer. Nil: an empty directory.
	Layer *Layer
	// Bind shows Layer read-only and without an overlay.
	Bind bool
	// cover hides what the host has at Target.
	cover bool
	// file says that Layer is a file.
	file bool
	// make says that nothing stands at Target yet on which the file could be mounted.
	make bool
	// depth is how many overlays are stacked at Target, this one included.
	depth int
}
