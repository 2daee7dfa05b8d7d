package main

import "github.com/opencontainers/runtime-spec/specs-go"

// firstNewCall is the number of the first system call after Linux 5.14, process_mrelease. From 424 on, numbers are the same on all
// architectures.
const firstNewCall = 448

// Errors that kernels without a feature answer with.
const (
	enosys     = 38
	enotty     = 25
	einval     = 22
	ebadf      = 9
	eopnotsupp = 95
	enoproto   = 92 // ENOPROTOOPT
)

// cond is a condition on an argument of a call: arg & mask == value, or arg >= atLeast.
type cond struct {
	arg         uint
	mask, value uint64
	atLeast     uint64
}

// newer is a use of an old call that a newer kernel knows. One of the conditions in each group must hold; a group with several
// stands for several rules.
type newer struct {
	call  string
	errno uint
	conds []cond
	since string // the release that brought it
}

func bit(arg uint, b uint64) []cond { return []cond{{arg: arg, mask: b, value: b}} }
func is(arg uint, v uint64) []cond  { return []cond{{arg: arg, mask: 0xffffffff, value: v}} }

// request is an ioctl by type and number, whatever the size of its argument.
func request(typ, nr uint64) []cond { return []cond{{arg: 1, mask: 0xffff, value: typ<<8 | nr}} }

// option is an option of SOL_SOCKET.
func option(name uint64) []cond {
	return []cond{{arg: 1, mask: 0xffffffff, value: 1}, {arg: 2, mask: 0xffffffff, value: name}}
}

// later lists what came after 5.14, from the headers in include/uapi/linux of each release.
func later() []newer {
	list := []newer{
		{"memfd_create", einval, bit(1, 0x8), "6.3"},                   // MFD_NOEXEC_SEAL
		{"memfd_create", einval, bit(1, 0x10), "6.3"},                  // MFD_EXEC
		{"seccomp", einval, append(is(0, 1), bit(1, 1<<5)...), "5.19"}, // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		{"fcntl", einval, append(is(1, 1033), bit(2, 0x20)...), "6.3"}, // F_ADD_SEALS, F_SEAL_EXEC
		{"fcntl", einval, is(1, 1027), "6.10"},                         // F_DUPFD_QUERY
		{"fcntl", einval, is(1, 1028), "6.12"},                         // F_CREATED_QUERY
		{"move_mount", einval, bit(4, 0x100), "5.15"},                  // MOVE_MOUNT_SET_GROUP
		{"move_mount", einval, bit(4, 0x200), "6.5"},                   // MOVE_MOUNT_BENEATH
		{"open_tree", einval, bit(2, 0x2), "7.0"},                      // OPEN_TREE_NAMESPACE
		{"fsconfig", eopnotsupp, is(1, 8), "6.6"},                      // FSCONFIG_CMD_CREATE_EXCL
		{"fsconfig", einval, is(1, 5), "6.13"},                         // FSCONFIG_SET_FD: layers of overlay, pid namespace of proc
		{"pidfd_open", einval, bit(1, 0x80), "6.9"},                    // PIDFD_THREAD
		{"pidfd_send_signal", einval, []cond{{arg: 3, atLeast: 1}}, "6.9"},
		{"execveat", einval, bit(4, 0x10000), "6.14"},          // AT_EXECVE_CHECK
		{"name_to_handle_at", einval, bit(4, 0x1), "6.12"},     // AT_HANDLE_MNT_ID_UNIQUE
		{"name_to_handle_at", einval, bit(4, 0x2), "6.13"},     // AT_HANDLE_CONNECTABLE
		{"name_to_handle_at", einval, bit(4, 0x200), "6.5"},    // AT_HANDLE_FID
		{"fanotify_init", einval, bit(0, 0x80), "5.15"},        // FAN_REPORT_PIDFD
		{"fanotify_init", einval, bit(0, 0x1000), "5.17"},      // FAN_REPORT_TARGET_FID
		{"fanotify_init", einval, bit(0, 0x4000), "6.14"},      // FAN_REPORT_MNT
		{"preadv2", eopnotsupp, bit(5, 0x80), "6.14"},          // RWF_DONTCACHE
		{"pwritev2", eopnotsupp, bit(5, 0x20), "6.9"},          // RWF_NOAPPEND
		{"pwritev2", eopnotsupp, bit(5, 0x40), "6.11"},         // RWF_ATOMIC
		{"pwritev2", eopnotsupp, bit(5, 0x80), "6.14"},         // RWF_DONTCACHE
		{"landlock_create_ruleset", einval, bit(2, 2), "6.15"}, // LANDLOCK_CREATE_RULESET_ERRATA
		{"madvise", einval, is(2, 24), "5.18"},                 // MADV_DONTNEED_LOCKED
		{"madvise", einval, is(2, 25), "6.1"},                  // MADV_COLLAPSE
		{"madvise", einval, is(2, 102), "6.13"},                // MADV_GUARD_INSTALL
		{"madvise", einval, is(2, 103), "6.13"},                // MADV_GUARD_REMOVE
		{"bpf", einval, []cond{{arg: 0, atLeast: 36}}, "6.9"},  // BPF_TOKEN_CREATE and what follows
		{"getsockopt", enoproto, option(76), "6.5"},            // SO_PASSPIDFD
		{"getsockopt", enoproto, option(77), "6.5"},            // SO_PEERPIDFD
		{"setsockopt", enoproto, option(76), "6.5"},
		{"setsockopt", enoproto, option(83), "6.16"}, // SO_PASSRIGHTS
		{"ioctl", einval, request('!', 4), "6.6"},    // SECCOMP_IOCTL_NOTIF_SET_FLAGS
		{"ioctl", enotty, request(0x8a, 1), "6.9"},   // EPIOCSPARAMS
		{"ioctl", enotty, request(0x8a, 2), "6.9"},   // EPIOCGPARAMS
	}
	for nr := range uint64(16) { // PIDFD_GET_..._NAMESPACE of 6.11, PIDFD_GET_INFO of 6.13
		list = append(list, newer{"ioctl", enotty, request(0xff, nr), "6.11"})
	}
	for nr := uint64(5); nr < 16; nr++ { // NS_GET_MNTNS_ID and what follows
		list = append(list, newer{"ioctl", enotty, request(0xb7, nr), "6.10"})
	}
	for fd := uint64(10000); fd <= 10003; fd++ { // PIDFD_SELF, PIDFD_SELF_THREAD_GROUP, FD_PIDFS_ROOT, FD_NSFS_ROOT
		for _, call := range []string{"pidfd_send_signal", "pidfd_getfd", "setns"} {
			list = append(list, newer{call, ebadf, is(0, uint64(uint32(-int32(fd)))), "6.14"})
		}
	}
	for _, op := range []uint64{65, 66, 67, 68, 77, 78, 79, 0x53564d41, 0x41555856} { // PR_SET_MDWE … PR_SET_VMA, PR_GET_AUXV
		list = append(list, newer{"prctl", einval, is(0, op), "5.17"})
	}
	return list
}

// profile is later as a profile of seccomp.
func profile() *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for _, n := range later() {
		s := specs.LinuxSyscall{Names: []string{n.call}, Action: specs.ActErrno, ErrnoRet: &n.errno}
		for _, c := range n.conds {
			a := specs.LinuxSeccompArg{Index: c.arg, Value: c.mask, ValueTwo: c.value, Op: specs.OpMaskedEqual}
			if c.atLeast != 0 {
				a = specs.LinuxSeccompArg{Index: c.arg, Value: c.atLeast, Op: specs.OpGreaterEqual}
			}
			s.Args = append(s.Args, a)
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}
