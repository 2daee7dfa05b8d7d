package caisson

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/rootfs"
)

// explainFailure turns an error of the stage into the public form and adds the sentinel that fits.
func (r *running) explainFailure(err error) error {
	var se *program.StepError
	if errors.Is(err, stage.ErrExecForbidden) { // it tells of several attempts
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if !errors.As(err, &se) {
		return err
	}
	out := &StepError{Step: se.Step, Object: se.Object, Syscall: se.Syscall, Call: se.Call, Err: se.Errno}
	if se.Step == fakeDevice {
		out.Err = fmt.Errorf("%w: %w", ErrForgedDevice, se.Errno)
		return out
	}
	if se.Step == "look for" && se.Errno == unix.ELOOP {
		out.Err = fmt.Errorf("%w: its path leads through a link of procfs, or in circles: %w", ErrCommandNotExecutable, se.Errno)
		return out
	}
	if se.Step == noteStep && r.det != nil {
		out.Err = &fs.PathError{Op: "write", Path: filepath.Join(r.det.entry.Path(), state.StatusName), Err: se.Errno}
		return out
	}
	if rel, err := linux.KernelRelease(); err == nil && lacksMappedLayers(se, rel) {
		out.Err = fmt.Errorf("%w: %w", ErrUnsupported, se.Errno)
		return out
	}
	if se.Step != "execute" || se.Object == "the stage" {
		return out
	}
	out.Err = r.commandFault(se.Errno)
	return out
}

// lacksMappedLayers: an overlay of id-mapped layers is refused by a kernel that may be too old for it. Distributions have brought it to some, so nobody is refused before.
func lacksMappedLayers(se *program.StepError, rel linux.Release) bool {
	return se.Step == "mount overlay" && strings.HasSuffix(se.Object, " id-mapped layers") && se.Errno == unix.EINVAL && !rel.AtLeast(5, 19)
}

// commandFault says what is wrong with a command that the kernel refuses to execute. Its ENOENT does not tell a
// missing command from a missing interpreter, and a search in PATH ends with the answer for the last directory;
// therefore the root filesystem is looked at.
func (r *running) commandFault(errno unix.Errno) error {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		if err := r.lookCommand(); err != nil {
			return fmt.Errorf("%w: %w: %w", ErrCommandNotExecutable, err, errno)
		}
		return fmt.Errorf("%w: %w", ErrCommandNotFound, errno)
	case unix.EACCES, unix.EPERM, unix.ENOEXEC, unix.EISDIR, unix.ELIBBAD, unix.EINVAL:
		if help := r.spec.process.lsm.refused(errno); help != "" {
			return withRemedy(help, "%w: %w", ErrCommandNotExecutable, errno)
		}
		return fmt.Errorf("%w: %w", ErrCommandNotExecutable, errno)
	}
	return errno
}

// lookCommand returns why a command that is there cannot be executed, or nil if it is not there.
func (r *running) lookCommand() error {
	p := &r.spec.process
	if p.commandFile != nil {
		return errors.New("its interpreter or dynamic loader is not in the root filesystem")
	}
	if r.root == nil {
		return nil
	}
	root, err := openLayer(rootfs.Layer{File: r.root})
	if err != nil {
		return nil
	}
	defer root.Close()
	var fault *rootfs.CommandError
	_, err = rootfs.LookPath(root, p.args[0], pathOf(p.environment(r.m.home())), p.dir)
	switch {
	case !errors.As(err, &fault) || fault.Path == "":
		return nil
	case fault.Interpreter != "":
		return fmt.Errorf("%s needs %s, which is missing", fault.Path, fault.Interpreter)
	}
	return fmt.Errorf("%s: %w", fault.Path, fault.Err)
}

// remedy returns what would help against err, as far as that is known.
func remedy(err error) string {
	if errors.Is(err, stage.ErrExecForbidden) {
		return ""
	}
	var told *remedied
	if errors.As(err, &told) {
		return told.remedy
	}
	var se *StepError
	var pe *program.StepError
	call, errno := "", unix.Errno(0)
	switch {
	case errors.As(err, &se):
		call = se.Syscall
	case errors.As(err, &pe):
		call = pe.Syscall
	}
	if !errors.As(err, &errno) {
		return ""
	}
	if r := diskRemedy(err, errno); r != "" {
		return r
	}
	if call == "" && !errors.As(err, new(*os.SyscallError)) {
		return ""
	}
	var sc *os.SyscallError
	if errors.As(err, &sc) && call == "" {
		call = sc.Syscall
	}
	if se != nil && rootUnreadable(se, errno) {
		return "the root directory, or one above it, cannot be entered by the container's root user: chmod o+x, or another place"
	}
	if r := confinedRemedy(call, errno); r != "" {
		return r
	}
	if r := filterRemedy(call, errno); r != "" {
		return r
	}
	if r := scarceRemedy(call, errno); r != "" {
		return r
	}
	if se != nil && se.Step == appArmorStep {
		return appArmorRemedy(errno)
	}
	if se != nil && se.Step == selinuxStep {
		return selinuxRemedy(errno)
	}
	switch call {
	case "close_range":
		if errno == unix.ENOSYS || errno == unix.EINVAL {
			return "Linux 5.11 or later is needed"
		}
	case "clone3", "clone", "unshare":
		return cloneRemedy(errno)
	case "execve", "execveat":
		if errno == unix.ENOENT && errors.Is(err, ErrCommandNotFound) {
			return "look at the PATH and at what the root filesystem contains"
		}
	case "mount_setattr":
		if errno == unix.EINVAL {
			return "this kernel cannot map the ids of that directory's file system (tmpfs: from Linux 6.3; overlay layers: from 5.19; network file systems: hardly): move it, or do without a user namespace"
		}
	case "fsconfig", "fsmount", "mount", "move_mount":
		if errno == unix.EPERM && !privileged() {
			return "a /proc that is partly covered, as in an unprivileged container, cannot be mounted anew: give the outer container an unmasked /proc " +
				"(podman run --security-opt unmask=ALL, docker run --security-opt systempaths=unconfined)"
		}
	}
	if se != nil {
		return rootfs.Remedy(se.Step, se.Object, errno)
	}
	return ""
}

// diskRemedy is for a file of the library's own that could not be written.
func diskRemedy(err error, e unix.Errno) string {
	var pe *fs.PathError
	if !errors.As(err, &pe) || !errors.Is(pe.Err, e) {
		return ""
	}
	switch e {
	case unix.ENOSPC:
		return "the file system is full, or has no inode left: free something there, or use another directory"
	case unix.EDQUOT:
		return "the user's quota on that file system is used up: free something there, or use another directory"
	case unix.EIO:
		return "the disk, or what stands for it, fails: see the kernel's log, or use another directory"
	case unix.EROFS:
		return "the file system is read-only: mount it writable, or use another directory"
	}
	return ""
}

// scarceRemedy is for what the kernel has no more of.
func scarceRemedy(call string, e unix.Errno) string {
	switch {
	case e == unix.EMFILE && call == "inotify_init1":
		return "no inotify instance is left: raise the sysctl fs.inotify.max_user_instances"
	case e == unix.EMFILE:
		return "no file descriptor is left: raise RLIMIT_NOFILE"
	case e == unix.ENFILE:
		return "the machine has no file left: raise the sysctl fs.file-max"
	case e == unix.ENOSPC && strings.Contains(call, "mount"):
		return "the limit of mounts in a mount namespace is reached: raise the sysctl fs.mount-max"
	case e == unix.ENOMEM:
		return "the kernel has no memory for it: look at what is free, and at the memory limit of the cgroup of this program"
	}
	return ""
}

// rootUnreadable reports whether the step failed for the root directory itself, which the first mount in it meets.
func rootUnreadable(se *StepError, e unix.Errno) bool {
	return e == unix.EACCES && se.Object == "/proc" && strings.HasPrefix(se.Step, "mount proc")
}

// filterRemedy is for a program that has a seccomp filter already, which the error may come from.
func filterRemedy(call string, e unix.Errno) string {
	if e != unix.ENOSYS && e != unix.EPERM && e != unix.EACCES || !filtered() {
		return ""
	}
	if call == "fsmount" && e == unix.EPERM {
		return "" // a filter that refuses it refuses fsopen, which has succeeded
	}
	switch call {
	case "clone3", "clone", "unshare", "setns", "mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount",
		"mount_setattr", "seccomp", "sethostname", "setdomainname", "mknodat", "pidfd_open", "pidfd_send_signal", "prctl":
		return "this program runs under a seccomp filter, such as an outer container's, which may refuse the call: allow " + call +
			" there, or run the outer container without a filter (docker run --security-opt seccomp=unconfined)"
	case "close_range":
		return "Linux 5.11 or later is needed, and a seccomp filter, such as an outer container's, that allows the call"
	}
	return ""
}

// confinedRemedy is for a program that AppArmor may have refused a call: the call itself, which its profile does not allow (EACCES), or for want
// of the capabilities that it may not have in a user namespace (EPERM).
func confinedRemedy(call string, e unix.Errno) string {
	if e != unix.EACCES && (e != unix.EPERM || privileged() || filtered()) {
		return ""
	}
	switch call {
	case "clone3", "clone", "unshare":
		if e == unix.EPERM { // AppArmor answers EACCES
			return ""
		}
		return appArmorRestricts()
	case "setns", "mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr", "sethostname",
		"setdomainname", "setgroups", "setresuid", "setresgid":
		return appArmorRestricts()
	}
	return ""
}

// appArmorRestricts says how AppArmor keeps this program from what containers need, if it may do so.
func appArmorRestricts() string {
	name := appArmorConfines()
	switch {
	case !privileged() && sysctlIs("kernel/apparmor_restrict_unprivileged_userns", "1"):
		return "AppArmor restricts unprivileged user namespaces: give the program a profile with \"userns,\", or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	case name != "":
		return fmt.Sprintf("this program runs under the AppArmor profile %q, which may refuse it: allow \"userns,\", \"capability,\", \"mount,\", \"umount,\" and \"pivot_root,\" there, "+
			"or run the program without (for an outer container: docker run --security-opt apparmor=unconfined)", name)
	}
	return ""
}

// appArmorConfines returns the AppArmor profile that this program is held to, if there is one. The kernel says "name (mode)".
func appArmorConfines() string {
	b, err := os.ReadFile("/proc/thread-self/attr/apparmor/current")
	if err != nil {
		return ""
	}
	label, mode, _ := strings.Cut(strings.TrimRight(string(b), "\n\x00"), " (")
	if mode != "enforce)" && mode != "mixed)" {
		return ""
	}
	return label
}

// filtered reports whether this program runs under a seccomp filter.
func filtered() bool {
	b, err := os.ReadFile("/proc/thread-self/status")
	return err == nil && strings.Contains(string(b), "\nSeccomp:\t2\n")
}

// cloneRemedy tells the reasons why namespaces are refused apart.
func cloneRemedy(e unix.Errno) string {
	switch {
	case e == unix.ENOSPC:
		return "the limit of namespaces is reached: see the sysctls user.max_*_namespaces (0 forbids them)"
	case e == unix.ENOSYS:
		return "a seccomp profile of an outer container hides the call: allow clone3 and unshare with namespaces there"
	case e == unix.EAGAIN:
		return "the limit of processes is reached: RLIMIT_NPROC, or pids.max of a cgroup; a container with ranges of user ids needs a limit of at least 2 to start"
	case e != unix.EPERM && e != unix.EACCES:
		return ""
	case sysctlIs("kernel/unprivileged_userns_clone", "0"):
		return "unprivileged user namespaces are switched off: sysctl kernel.unprivileged_userns_clone=1"
	}
	if r := appArmorRestricts(); r != "" {
		return r
	}
	return "namespaces need CAP_SYS_ADMIN, or unprivileged user namespaces, which a security policy may forbid here"
}

func sysctlIs(name, value string) bool {
	b, err := os.ReadFile("/proc/sys/" + name)
	return err == nil && strings.TrimSpace(string(b)) == value
}

// appArmorRemedy tells the reasons why a profile is refused apart.
func appArmorRemedy(e unix.Errno) string {
	switch e {
	case unix.ENOENT:
		return "no such profile is loaded: apparmor_parser -r FILE"
	case unix.EACCES, unix.EPERM:
		return "the host program's own profile does not allow to change to this one"
	}
	return ""
}

// selinuxRemedy tells the reasons why a label is refused apart.
func selinuxRemedy(e unix.Errno) string {
	switch e {
	case unix.EINVAL:
		return "the SELinux policy that is loaded has no such label: look at its user, role, type and levels (seinfo -t, semodule -l)"
	case unix.EACCES, unix.EPERM:
		return "the SELinux policy does not allow this program to give the label (setexec, setkeycreate): ausearch -m AVC tells"
	}
	return ""
}

// mountLabelRemedy tells the reasons apart why a mount is refused that gets a label.
func (s *spec) mountLabelRemedy(err error) string {
	var errno unix.Errno
	var se *StepError
	labelled := s.mountLabel != nil || slices.ContainsFunc(s.mounts, func(m rootfs.Mount) bool { return m.Label != "" })
	if !labelled || !errors.As(err, &se) || !errors.As(err, &errno) || !slices.Contains([]string{"mount", "fsconfig", "setxattr"}, se.Syscall) {
		return ""
	}
	switch errno {
	case unix.EINVAL:
		return selinuxRemedy(errno)
	case unix.EACCES:
		return "the SELinux policy does not allow this program to give the label (relabelfrom, relabelto of filesystems): ausearch -m AVC tells"
	}
	return ""
}

// refused says what else than the file's mode may refuse the execution of a command that gets a label.
func (l *lsmSpec) refused(e unix.Errno) string {
	switch {
	case e != unix.EACCES && e != unix.EPERM:
		return ""
	case l.selinux != nil:
		return "if the file may be executed, the SELinux policy does not allow the change to " + *l.selinux +
			" (transition, entrypoint, and nnp_transition with no_new_privs): ausearch -m AVC tells"
	case l.apparmor != nil:
		return "if the file may be executed, the AppArmor profile " + *l.apparmor + " does not allow it: dmesg tells"
	}
	return ""
}
