package namespaces

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// remedy says what would help against a refusal to make or join a namespace of kind k.
func remedy(k Kind, err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return "the limit is reached: raise " + limitFile(k) + ", or nest fewer (at most 32 levels)"
	case errors.Is(err, unix.EINVAL):
		return "this kernel may lack the kind (Linux " + k.Since() + ", and its CONFIG option)"
	case errors.Is(err, unix.ENOSYS):
		return "the seccomp filter of an outer container may forbid it"
	case errors.Is(err, unix.EPERM) && k == User:
		return userRemedy()
	case errors.Is(err, unix.EPERM):
		return "needs CAP_SYS_ADMIN in the user namespace that owns it: run as root, or in a new user namespace"
	}
	return ""
}

// limitFile is the sysctl that bounds the number of namespaces, see namespaces(7).
func limitFile(k Kind) string { return "/proc/sys/user/max_" + k.ProcName() + "_namespaces" }

// userRemedy names the switch that forbids user namespaces to unprivileged users, if one is found.
func userRemedy() string {
	switch {
	case sysctl("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "allow unprivileged user namespaces: sysctl -w kernel.unprivileged_userns_clone=1"
	case sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor restricts unprivileged user namespaces: give the program a profile that allows userns, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	}
	return "the seccomp filter of an outer container, a chroot or a security module may forbid it"
}

// sysctl returns a setting, or "" if there is none of the name.
func sysctl(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
