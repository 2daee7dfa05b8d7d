package main

import (
	"encoding/json"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// filter does something when getpriority is called, and allows all else.
func filter(action specs.LinuxSeccompAction, args ...specs.LinuxSeccompArg) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getpriority"}, Action: action, Args: args}}}
}

func seccompChecks() []check {
	const s = "config-linux: seccomp"
	call := func(result string, f *specs.LinuxSeccomp) func(t *trial) {
		return func(t *trial) {
			t.spec.Linux.Seccomp = f
			want(t, "call", t.report("call:0").Did["call:0"], result)
		}
	}
	with := func(f *specs.LinuxSeccomp, change func(f *specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		change(f)
		return f
	}
	list := []check{
		{s, "field", "SCMP_ACT_ALLOW", call("ok", filter(specs.ActAllow))},
		{s, "field", "SCMP_ACT_ERRNO", call("EPERM", filter(specs.ActErrno))},
		{s, "field", "SCMP_ACT_ERRNO with errnoRet", call("EIO", with(filter(specs.ActErrno), func(f *specs.LinuxSeccomp) { f.Syscalls[0].ErrnoRet = ref(uint(unix.EIO)) }))},
		{s, "field", "SCMP_ACT_LOG", call("ok", filter(specs.ActLog))},
		{s, "field", "SCMP_ACT_TRACE", call("ENOSYS", filter(specs.ActTrace))},
		{s, "field", "SCMP_ACT_KILL_PROCESS", func(t *trial) {
			t.spec.Linux.Seccomp = filter(specs.ActKillProcess)
			want(t, "exit status", t.runs("report", "call:0").code, 128+int(unix.SIGSYS))
		}},
		{s, "field", "SCMP_ACT_KILL_THREAD", killsThread(specs.ActKillThread)},
		{s, "field", "SCMP_ACT_KILL is KILL_THREAD", killsThread(specs.ActKill)},
		{s, "field", "SCMP_ACT_TRAP", func(t *trial) {
			t.spec.Linux.Seccomp = filter(specs.ActTrap)
			if r := t.runs("report", "call:0"); r.code == 0 || !strings.Contains(r.errs, "SIGSYS") {
				t.failf("%v", r)
			}
		}},
		{s, "field", "defaultErrnoRet, in a profile that knows no later calls", func(t *trial) {
			f := filter(specs.ActErrno)
			f.Syscalls[0].ErrnoRet = nil
			f.DefaultErrnoRet = nil
			t.spec.Linux.Seccomp = f
			f.DefaultAction, f.DefaultErrnoRet = specs.ActErrno, ref(uint(unix.ENOSYS))
			f.Syscalls = []specs.LinuxSyscall{{Names: allBut("getpriority"), Action: specs.ActAllow}}
			want(t, "call", t.report("call:0").Did["call:0"], "ENOSYS")
		}},
		{s, "MUST", "errnoRet with an action that has none is an error", func(t *trial) {
			f := filter(specs.ActKillProcess)
			f.Syscalls[0].ErrnoRet = ref(uint(1))
			t.spec.Linux.Seccomp = f
			t.fails()
		}},
		{s, "MUST", "defaultErrnoRet with an action that has none is an error", func(t *trial) {
			f := filter(specs.ActErrno)
			f.DefaultErrnoRet = ref(uint(1))
			t.spec.Linux.Seccomp = f
			t.fails()
		}},
		{s, "MUST", "names needs an entry", func(t *trial) {
			f := filter(specs.ActErrno)
			f.Syscalls[0].Names = []string{}
			t.spec.Linux.Seccomp = f
			t.fails()
		}},
		{s, "field", "a call that the kernel does not have is no error", call("EPERM", with(filter(specs.ActErrno), func(f *specs.LinuxSeccomp) {
			f.Syscalls[0].Names = append(f.Syscalls[0].Names, "no_such_system_call")
		}))},
		{s, "field", "SCMP_ACT_NOTIFY: the state comes to the listener", func(t *trial) { t.notified(nil) }},
		{s, "MUST", "listener: the descriptor is seccompFd, sent with the state", func(t *trial) {
			t.notified(func(st specs.ContainerProcessState, fds []int) {
				if len(fds) != 1 || len(st.Fds) != 1 || st.Fds[0] != specs.SeccompFdName {
					t.failf("descriptors %v, names %v", fds, st.Fds)
				}
			})
		}},
		{s, "MUST", "listener: exactly one state, and the connection is closed", func(t *trial) { t.notified(func(specs.ContainerProcessState, []int) {}) }},
		{s, "field", "listenerMetadata is handed over", func(t *trial) {
			t.notified(func(st specs.ContainerProcessState, _ []int) { want(t, "metadata", st.Metadata, "opaque") })
		}},
		{s, "MUST", "listener: pid and state are the container's", func(t *trial) {
			t.notified(func(st specs.ContainerProcessState, _ []int) {
				if st.Pid <= 1 || st.State.ID != t.id || st.State.Bundle != t.bundle() || st.Version == "" {
					t.failf("%+v", st)
				}
			})
		}},
		{s, "MUST", "a listener that does not exist is an error", func(t *trial) {
			f := filter(specs.ActNotify)
			f.ListenerPath = t.dir + "/none"
			t.spec.Linux.Seccomp = f
			t.fails()
		}},
		{s, "field", "listenerPath is ignored without SCMP_ACT_NOTIFY", call("EPERM", with(filter(specs.ActErrno), func(f *specs.LinuxSeccomp) { f.ListenerPath = "/none" }))},
		{s, "MUST", "listenerMetadata without listenerPath is an error", func(t *trial) {
			f := filter(specs.ActErrno)
			f.ListenerMetadata = "opaque"
			t.spec.Linux.Seccomp = f
			t.fails()
		}},
	}
	for _, o := range []struct {
		op         specs.LinuxSeccompOperator
		value, two uint64
		hits       string // the values of 0, 1, 2 that match
	}{{specs.OpNotEqual, 1, 0, "02"}, {specs.OpLessThan, 1, 0, "0"}, {specs.OpLessEqual, 1, 0, "01"}, {specs.OpEqualTo, 1, 0, "1"},
		{specs.OpGreaterEqual, 1, 0, "12"}, {specs.OpGreaterThan, 1, 0, "2"}, {specs.OpMaskedEqual, 2, 2, "2"}} {
		list = append(list, check{s, "field", "args: " + string(o.op), func(t *trial) {
			t.spec.Linux.Seccomp = filter(specs.ActErrno, specs.LinuxSeccompArg{Index: 0, Value: o.value, ValueTwo: o.two, Op: o.op})
			r := t.report("call:0", "call:1", "call:2")
			hits := ""
			for _, n := range []string{"0", "1", "2"} {
				if r.Did["call:"+n] == "EPERM" {
					hits += n
				}
			}
			want(t, "calls refused", hits, o.hits)
		}})
	}
	for _, flag := range []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv} {
		list = append(list, check{s, "field", "flags: " + string(flag), func(t *trial) {
			if flag == specs.LinuxSeccompFlagWaitKillableRecv { // only with a listener
				t.notifiedBy(flag, nil)
				return
			}
			f := filter(specs.ActErrno)
			f.Flags = []specs.LinuxSeccompFlag{flag}
			t.spec.Linux.Seccomp = f
			want(t, "call", t.report("call:0").Did["call:0"], "EPERM")
		}})
	}
	return list
}

// killsThread: the thread that calls is gone, and the others live on.
func killsThread(action specs.LinuxSeccompAction) func(t *trial) {
	return func(t *trial) {
		t.logged()
		t.spec.Linux.Seccomp = filter(action)
		t.create("thread", "/log/thread")
		t.ok("start", t.id)
		t.until("thread", func() bool { return len(t.lines("thread")) > 0 })
		time.Sleep(300 * time.Millisecond)
		want(t, "status", t.state().Status, "running")
		t.wantLines("thread", "before")
	}
}

// allBut are the calls of a Go program, and of runtimes on their way to it, as profiles listed them before Linux 5.6.
func allBut(name string) (list []string) {
	for _, n := range strings.Fields(goCalls) {
		if n != name {
			list = append(list, n)
		}
	}
	return list
}

const goCalls = `access arch_prctl brk capget capset chdir chmod chown clock_gettime clock_nanosleep clone close connect dup dup2 dup3
 epoll_create1 epoll_ctl epoll_pwait eventfd2 execve execveat exit exit_group faccessat fchdir fchmod fchown fcntl fstat fstatfs futex getcwd getdents64
 getegid geteuid getgid getgroups getpgrp getpid getppid getrandom getrlimit getsockopt gettid gettimeofday getuid get_mempolicy ioctl ioprio_get kill lseek lstat madvise
 membarrier mmap mprotect mremap munmap nanosleep newfstatat newuname open openat personality pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64
 read readlink readlinkat recvfrom recvmsg restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigtimedwait sched_getaffinity sched_getscheduler
 sched_setaffinity sched_yield seccomp sendmsg sendto set_robust_list set_tid_address setgid setgroups setresgid setresuid setsid setuid sigaltstack socket socketpair splice stat
 statfs statx sysinfo tgkill timer_create timer_delete timer_settime umask uname wait4 waitid write writev`

// notified runs a container whose calls go to a listener.
func (t *trial) notified(f func(st specs.ContainerProcessState, fds []int)) { t.notifiedBy("", f) }

func (t *trial) notifiedBy(flag specs.LinuxSeccompFlag, f func(st specs.ContainerProcessState, fds []int)) {
	listener, path := t.listen("n")
	s := filter(specs.ActNotify)
	s.ListenerPath, s.ListenerMetadata = path, "opaque"
	if flag != "" {
		s.Flags = []specs.LinuxSeccompFlag{flag}
	}
	t.spec.Linux.Seccomp = s
	type got struct {
		text string
		fds  []int
	}
	ch := make(chan got, 1)
	go func() {
		defer close(ch)
		defer func() { _ = recover() }() // nothing came: the channel says so
		text, fds := t.receive(listener)
		ch <- got{text, fds}
	}()
	t.create("wait")
	t.ok("start", t.id)
	g, ok := <-ch
	if !ok {
		t.failf("nothing came to the listener")
	}
	defer func() {
		for _, fd := range g.fds {
			_ = unix.Close(fd)
		}
	}()
	var st specs.ContainerProcessState
	t.must(json.Unmarshal([]byte(g.text), &st))
	if f != nil {
		f(st, g.fds)
	}
}

func featureChecks() []check {
	const s = "features"
	with := func(f func(t *trial, f *features.Features)) func(t *trial) {
		return func(t *trial) {
			var v features.Features
			t.must(json.Unmarshal([]byte(t.ok("features").out), &v))
			f(t, &v)
		}
	}
	linux := func(f func(t *trial, l *features.Linux)) func(t *trial) {
		return with(func(t *trial, v *features.Features) {
			if v.Linux == nil {
				t.failf("there is no linux")
			}
			f(t, v.Linux)
		})
	}
	return []check{
		{s, "MUST", "ociVersionMin is accepted", with(func(t *trial, f *features.Features) { t.spec.Version = f.OCIVersionMin; t.report() })},
		{s, "MUST", "ociVersionMax is accepted", with(func(t *trial, f *features.Features) { t.spec.Version = f.OCIVersionMax; t.report() })},
		{s, "MUST", "nothing is printed that the structure does not have", func(t *trial) {
			d := json.NewDecoder(strings.NewReader(t.ok("features").out))
			d.DisallowUnknownFields()
			t.must(d.Decode(&features.Features{}))
		}},
		{s, "MUST", "hooks: each is called", with(func(t *trial, f *features.Features) {
			t.logged()
			for _, k := range f.Hooks {
				if missing := contains(hookKinds, k); missing != "" {
					t.failf("nobody knows a hook %s", k)
				}
				t.hook(k, k, 0)
			}
			t.whole()
			want(t, "number of hooks called", len(t.names()), len(f.Hooks))
		})},
		{s, "MUST", "mountOptions: all that a runtime must know are listed", with(func(t *trial, f *features.Features) {
			for _, o := range mountOptions() {
				if o.level == "MUST" && o.name != "defaults" {
					if missing := contains(f.MountOptions, o.name); missing != "" {
						t.failf("no %s", missing)
					}
				}
			}
		})},
		{s, "SHOULD", "mountOptions: none of a file system's own", with(func(t *trial, f *features.Features) {
			for _, own := range []string{"size", "mode", "uid", "gid", "nr_inodes", "newinstance", "ptmxmode", "lowerdir", "hidepid"} {
				if contains(f.MountOptions, own) == "" {
					t.failf("%s is listed", own)
				}
			}
		})},
		{s, "MUST", "linux.namespaces: each can be made", linux(func(t *trial, l *features.Linux) {
			t.spec.Linux.Namespaces = nil
			for _, n := range l.Namespaces {
				t.namespace(specs.LinuxNamespaceType(n), "")
			}
			t.mapped()
			t.mine()
			t.report()
		})},
		{s, "MUST", "linux.capabilities: each is known", linux(func(t *trial, l *features.Linux) {
			t.capable(l.Capabilities...)
			if s := t.runs("exit", "0"); s.code != 0 || strings.Contains(s.errs, "nknown capabilit") {
				t.failf("%v", s)
			}
		})},
		{s, "MUST", "linux.seccomp.actions: each is known", linux(func(t *trial, l *features.Linux) {
			f := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
			calls := []string{"acct", "adjtimex", "swapon", "swapoff", "reboot", "settimeofday", "delete_module", "init_module", "quotactl", "sethostname"}
			listener, path := t.listen("n")
			_ = listener
			for i, a := range l.Seccomp.Actions {
				if a == string(specs.ActNotify) {
					f.ListenerPath = path
				}
				if a != string(specs.ActAllow) && i < len(calls) {
					f.Syscalls = append(f.Syscalls, specs.LinuxSyscall{Names: []string{calls[i]}, Action: specs.LinuxSeccompAction(a)})
				}
			}
			t.spec.Linux.Seccomp = f
			t.report()
		})},
		{s, "MUST", "linux.seccomp.archs: each is known", linux(func(t *trial, l *features.Linux) {
			f := filter(specs.ActErrno)
			for _, a := range l.Seccomp.Archs {
				f.Architectures = append(f.Architectures, specs.Arch(a))
			}
			t.spec.Linux.Seccomp = f
			t.report()
		})},
		{s, "MUST", "linux.seccomp.supportedFlags: each is supported", linux(func(t *trial, l *features.Linux) {
			for _, flag := range l.Seccomp.SupportedFlags {
				if flag == string(specs.LinuxSeccompFlagWaitKillableRecv) {
					continue // only with a listener, which has a check of its own
				}
				f := filter(specs.ActErrno)
				f.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(flag)}
				t.spec.Linux.Seccomp = f
				want(t, "call", t.report("call:0").Did["call:0"], "EPERM")
				t.oci("delete", "--force", t.id)
			}
		})},
	}
}
