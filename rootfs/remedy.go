package rootfs

import (
	"errors"
	"strings"
	"syscall"
)

// Remedy says what helps against the failure of a step of a start, named as in the error ("mount proc on",
// "mount overlay"), with the errno that the kernel gave. It is empty where nothing particular is known.
func Remedy(step, object string, errno error) string {
	if strings.HasSuffix(object, mappedLayers) && errors.Is(errno, syscall.EINVAL) {
		return mappedRemedy
	}
	for _, r := range remedies {
		if strings.HasPrefix(step, r.step) && (r.object == "" || r.object == object) && errors.Is(errno, r.errno) {
			return r.text
		}
	}
	return ""
}

// checkStep is where an overlay turns out to be read-only that was not asked for.
const checkStep = "write to overlay with upper layer"

// mappedLayers ends the object of the step that mounts an overlay whose layers are id-mapped.
const mappedLayers = "id-mapped layers"

const mappedRemedy = "overlayfs takes id-mapped layers from Linux 5.19 on: before, do without a user namespace, or use one directory that is shown as it is, by Dir with Writable or ReadOnly, " +
	"or of an image by a snapshot that MethodCopy or MethodReflink makes; later, it refuses the layers for themselves: it stacks no more than two overlays, and the kernel log names the reason"

var remedies = []struct {
	step, object string
	errno        syscall.Errno
	text         string
}{
	{"mount proc on", "/proc", syscall.EINVAL, "the root filesystem has a symbolic link or a file at /proc; it must be a directory"},
	{"mount sysfs on", "/sys", syscall.EINVAL, "the root filesystem has a symbolic link or a file at /sys; it must be a directory"},
	{"mount tmpfs on", "/dev", syscall.EINVAL, "the root filesystem has a symbolic link or a file at /dev; it must be a directory"},
	{"attach device tree to", "/dev", syscall.EINVAL, "a device tree serves one container; and /dev in the root filesystem must be a directory, not a symbolic link or a file"},
	{checkStep, "", syscall.EROFS, "the kernel could not use its work directory, and mounted the overlay read-only: see its log, and whether the disk has failed; the container's root user must be able to make directories in work"},
	{"mount", "", syscall.EROFS, "the target does not exist in a root filesystem that cannot be written; make it there, or use a writable layer"},
	{"mount", "", syscall.ELOOP, "the target leads through a link of procfs or a loop of links; such a target is refused"},
	{"make proc", "", syscall.EPERM, "something is mounted over parts of the host's /proc, as in containers, and the kernel then refuses a fresh one to users; start that container with an unmasked /proc"},
	{"make sysfs", "", syscall.EPERM, "sysfs belongs to the network namespace; it needs one of the container's own, or the host's /sys as a bind mount"},
	{"mount overlay", "", syscall.EINVAL, "overlayfs refuses the layers: the kernel stacks no more than two overlays, and not every filesystem can be a layer; the kernel log names the reason"},
	{"mount overlay", "", syscall.ESTALE, "the upper layer was used with other lower layers before"},
	{"mount overlay", "", syscall.EBUSY, "the upper layer is in use by another mount"},
	{"open layer", "", syscall.EINVAL, "the filesystem cannot be id-mapped (tmpfs: Linux 6.3), or others are mounted below the directory, which a user namespace may not take apart; use another filesystem, or ReadOnly or Writable"},
	{"open root filesystem", "", syscall.EINVAL, "the directory is not in this mount namespace"},
	{"open layer", "", syscall.EACCES, "the directory, or one above it, may not be entered by this user"},
	{"open root filesystem", "", syscall.EACCES, "the directory, or one above it, may not be entered by this user"},
	{"write file", "", syscall.ENOSPC, "the writable layer is full; raise its UpperSize"},
}
