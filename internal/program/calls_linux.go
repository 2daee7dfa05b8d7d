package program

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The methods below add one system call each, with its arguments shown as strace shows them. Only calls that
// every architecture has are used: mknodat and not mknod, dup3 and not dup2.

// Cwd is the directory argument that means "relative to the current directory, or absolute".
func Cwd() Arg { return Named(unix.AT_FDCWD, "AT_FDCWD") }

// Mount is mount(2). Empty strings become null pointers.
func (b *Builder) Mount(source, target, fstype string, flags uintptr, data string) OpRef {
	return b.Call(unix.SYS_MOUNT, "mount", strOrNull(source), Str(target), strOrNull(fstype), Flags(flags, &mountFlags), strOrNull(data))
}

func strOrNull(s string) Arg {
	if s == "" {
		return Null()
	}
	return Str(s)
}

// Umount2 is umount2(2).
func (b *Builder) Umount2(target string, flags int) OpRef {
	return b.Call(unix.SYS_UMOUNT2, "umount2", Str(target), Flags(flags, &umountFlags))
}

// PivotRoot is pivot_root(2).
func (b *Builder) PivotRoot(root, put string) OpRef {
	return b.Call(unix.SYS_PIVOT_ROOT, "pivot_root", Str(root), Str(put))
}

// Chdir is chdir(2).
func (b *Builder) Chdir(path string) OpRef { return b.Call(unix.SYS_CHDIR, "chdir", Str(path)) }

// Fchdir is fchdir(2).
func (b *Builder) Fchdir(fd Arg) OpRef { return b.Call(unix.SYS_FCHDIR, "fchdir", fd) }

// Chroot is chroot(2).
func (b *Builder) Chroot(path string) OpRef { return b.Call(unix.SYS_CHROOT, "chroot", Str(path)) }

// Setxattr is setxattr(2), which follows links, with a value that is text.
func (b *Builder) Setxattr(path, name, value string) OpRef {
	return b.Call(unix.SYS_SETXATTR, "setxattr", Str(path), Str(name), Str(value), Int(uint64(len(value))), Int(0))
}

// OpenTree is open_tree(2), Linux 5.2.
func (b *Builder) OpenTree(dir Arg, path string, flags uint) OpRef {
	return b.Call(unix.SYS_OPEN_TREE, "open_tree", dir, Str(path), Flags(flags|unix.OPEN_TREE_CLOEXEC, &openTreeFlags))
}

// MoveMount is move_mount(2), Linux 5.2. An empty from path means the mount that fromFD is.
func (b *Builder) MoveMount(fromFD Arg, toDir Arg, to string) OpRef {
	flags := uint64(unix.MOVE_MOUNT_F_EMPTY_PATH)
	if to == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return b.Call(unix.SYS_MOVE_MOUNT, "move_mount", fromFD, Str(""), toDir, Str(to), Flags(flags, &moveMountFlags))
}

// Fsopen is fsopen(2), Linux 5.2.
func (b *Builder) Fsopen(fstype string) OpRef {
	return b.Call(unix.SYS_FSOPEN, "fsopen", Str(fstype), Flags(unix.FSOPEN_CLOEXEC, &[]Flag{{unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC"}}))
}

// FsconfigString is fsconfig(2) FSCONFIG_SET_STRING; the kernel takes at most 255 bytes of value.
func (b *Builder) FsconfigString(fs Arg, key, value string) OpRef {
	return b.Call(unix.SYS_FSCONFIG, "fsconfig", fs, Named(unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING"), Str(key), Str(value), Int(0))
}

// FsconfigFD is fsconfig(2) FSCONFIG_SET_FD.
func (b *Builder) FsconfigFD(fs Arg, key string, fd Arg) OpRef {
	return b.Call(unix.SYS_FSCONFIG, "fsconfig", fs, Named(unix.FSCONFIG_SET_FD, "FSCONFIG_SET_FD"), Str(key), Null(), fd)
}

// FsconfigFlag is fsconfig(2) FSCONFIG_SET_FLAG.
func (b *Builder) FsconfigFlag(fs Arg, key string) OpRef {
	return b.Call(unix.SYS_FSCONFIG, "fsconfig", fs, Named(unix.FSCONFIG_SET_FLAG, "FSCONFIG_SET_FLAG"), Str(key), Null(), Int(0))
}

// FsconfigCreate is fsconfig(2) FSCONFIG_CMD_CREATE.
func (b *Builder) FsconfigCreate(fs Arg) OpRef {
	return b.Call(unix.SYS_FSCONFIG, "fsconfig", fs, Named(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"), Null(), Null(), Int(0))
}

// Fsmount is fsmount(2), Linux 5.2. attrs are MOUNT_ATTR_ flags.
func (b *Builder) Fsmount(fs Arg, attrs uint64) OpRef {
	return b.Call(unix.SYS_FSMOUNT, "fsmount", fs, Flags(unix.FSMOUNT_CLOEXEC, &[]Flag{{unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"}}), Flags(attrs, &MountAttrs))
}

// MountSetattr is mount_setattr(2), Linux 5.12. usernsFD is the user namespace of MOUNT_ATTR_IDMAP and must be
// an input or a number, or Null.
func (b *Builder) MountSetattr(dir Arg, path string, recursive bool, set, clr, propagation uint64, usernsFD Arg) OpRef {
	flags := uint64(0)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := make([]byte, 32)
	ne := binary.NativeEndian
	ne.PutUint64(attr[0:], set)
	ne.PutUint64(attr[8:], clr)
	ne.PutUint64(attr[16:], propagation)
	shown := "{attr_set=" + flagNames(set, MountAttrs) + ", attr_clr=" + flagNames(clr, MountAttrs) +
		", propagation=" + propagationName(propagation) + ", userns_fd=" + nsfdName(usernsFD) + "}"
	arg := Bytes(attr, shown)
	if usernsFD.kind != kindNull {
		arg = arg.With(24, usernsFD)
	}
	return b.Call(unix.SYS_MOUNT_SETATTR, "mount_setattr", dir, Str(path), Flags(flags, &atFlags), arg, Int(32))
}

func nsfdName(a Arg) string {
	if a.kind == kindInput {
		return "<" + a.text + ">"
	}
	return strconv.FormatUint(a.val, 10)
}

func propagationName(p uint64) string { return flagNames(p, mountFlags) }

// Openat is openat(2); O_CLOEXEC is added.
func (b *Builder) Openat(dir Arg, path string, flags int, mode uint32) OpRef {
	args := []Arg{dir, Str(path), Named(uint64(flags|unix.O_CLOEXEC), openFlagNames(uint64(flags|unix.O_CLOEXEC)))}
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		args = append(args, Octal(mode))
	}
	return b.Call(unix.SYS_OPENAT, "openat", args...)
}

// Openat2 is openat2(2), Linux 5.6; O_CLOEXEC is added. resolve are RESOLVE_ flags.
func (b *Builder) Openat2(dir Arg, path string, flags, mode, resolve uint64) OpRef {
	how := make([]byte, 24)
	ne := binary.NativeEndian
	flags |= unix.O_CLOEXEC
	ne.PutUint64(how[0:], flags)
	ne.PutUint64(how[8:], mode)
	ne.PutUint64(how[16:], resolve)
	shown := "{flags=" + openFlagNames(flags)
	if mode != 0 {
		shown += ", mode=0" + strconv.FormatUint(mode, 8)
	}
	shown += ", resolve=" + flagNames(resolve, resolveFlags) + "}"
	return b.Call(unix.SYS_OPENAT2, "openat2", dir, Str(path), Bytes(how, shown), Int(24))
}

// Close is close(2).
func (b *Builder) Close(fd Arg) OpRef { return b.Call(unix.SYS_CLOSE, "close", fd) }

// CloseRange is close_range(2), Linux 5.9 (flag CLOEXEC: 5.11).
func (b *Builder) CloseRange(first uint, flags uint) OpRef {
	return b.Call(unix.SYS_CLOSE_RANGE, "close_range", Int(first), Named(uint64(^uint32(0)), "4294967295"), Flags(flags, &[]Flag{{unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC"}}))
}

// Write writes a string to fd.
func (b *Builder) Write(fd Arg, s string) OpRef {
	return b.Call(unix.SYS_WRITE, "write", fd, Bytes([]byte(s), quote(s)), Int(len(s)))
}

// Read reads n bytes into scratch memory.
func (b *Builder) Read(fd Arg, n int) OpRef {
	return b.Call(unix.SYS_READ, "read", fd, Bytes(make([]byte, n), "..."), Int(n))
}

// WriteFile opens path below dir for writing, writes s and closes the file, as the settings of /proc need it.
func (b *Builder) WriteFile(dir Arg, path, s string) (open, write OpRef) {
	open = b.Openat(dir, path, unix.O_WRONLY, 0)
	write = b.Write(open.Result(), s)
	b.Close(open.Result())
	return open, write
}

// Mkdirat is mkdirat(2).
func (b *Builder) Mkdirat(dir Arg, path string, mode uint32) OpRef {
	return b.Call(unix.SYS_MKDIRAT, "mkdirat", dir, Str(path), Octal(mode))
}

// Mknodat is mknodat(2). mode includes the type.
func (b *Builder) Mknodat(dir Arg, path string, mode uint32, major, minor uint32) OpRef {
	typ := map[uint32]string{unix.S_IFCHR: "S_IFCHR", unix.S_IFBLK: "S_IFBLK", unix.S_IFIFO: "S_IFIFO", unix.S_IFREG: "S_IFREG"}[mode&unix.S_IFMT]
	args := []Arg{dir, Str(path), Named(mode, typ+"|0"+strconv.FormatUint(uint64(mode&0o7777), 8))}
	if mode&unix.S_IFMT == unix.S_IFCHR || mode&unix.S_IFMT == unix.S_IFBLK {
		args = append(args, Named(unix.Mkdev(major, minor), fmt.Sprintf("makedev(%s, %s)", hex(major), hex(minor))))
	} else {
		args = append(args, Int(0))
	}
	return b.Call(unix.SYS_MKNODAT, "mknodat", args...)
}

// hex is a number as strace shows device numbers.
func hex(n uint32) string {
	if n == 0 {
		return "0"
	}
	return "0x" + strconv.FormatUint(uint64(n), 16)
}

// Symlinkat is symlinkat(2).
func (b *Builder) Symlinkat(target string, dir Arg, path string) OpRef {
	return b.Call(unix.SYS_SYMLINKAT, "symlinkat", Str(target), dir, Str(path))
}

// Umask is umask(2).
func (b *Builder) Umask(mask uint32) OpRef { return b.Call(unix.SYS_UMASK, "umask", Octal(mask)) }

// Unshare is unshare(2).
func (b *Builder) Unshare(flags uint64) OpRef {
	return b.Call(unix.SYS_UNSHARE, "unshare", Flags(flags, &cloneFlags))
}

// Setns is setns(2).
func (b *Builder) Setns(fd Arg, flags uint64) OpRef {
	return b.Call(unix.SYS_SETNS, "setns", fd, Flags(flags, &cloneFlags))
}

// Setsid is setsid(2).
func (b *Builder) Setsid() OpRef { return b.Call(unix.SYS_SETSID, "setsid") }

// Sethostname is sethostname(2).
func (b *Builder) Sethostname(name string) OpRef {
	return b.Call(unix.SYS_SETHOSTNAME, "sethostname", Bytes([]byte(name), quote(name)), Int(len(name)))
}

// Setdomainname is setdomainname(2).
func (b *Builder) Setdomainname(name string) OpRef {
	return b.Call(unix.SYS_SETDOMAINNAME, "setdomainname", Bytes([]byte(name), quote(name)), Int(len(name)))
}

// Prctl is prctl(2) with an option shown by name.
func (b *Builder) Prctl(option int, name string, args ...Arg) OpRef {
	all := append([]Arg{Named(option, name)}, args...)
	for len(all) < 5 {
		all = append(all, Int(0))
	}
	return b.Call(unix.SYS_PRCTL, "prctl", all...)
}

// Setresuid is setresuid(2) with one id for all three.
func (b *Builder) Setresuid(id uint32) OpRef {
	return b.Call(unix.SYS_SETRESUID, "setresuid", Int(id), Int(id), Int(id))
}

// Setresgid is setresgid(2) with one id for all three.
func (b *Builder) Setresgid(id uint32) OpRef {
	return b.Call(unix.SYS_SETRESGID, "setresgid", Int(id), Int(id), Int(id))
}

// Setgroups is setgroups(2).
func (b *Builder) Setgroups(gids []uint32) OpRef {
	list := make([]byte, 4*len(gids))
	names := make([]string, len(gids))
	for i, g := range gids {
		binary.NativeEndian.PutUint32(list[4*i:], g)
		names[i] = strconv.FormatUint(uint64(g), 10)
	}
	return b.Call(unix.SYS_SETGROUPS, "setgroups", Int(len(gids)), Bytes(list, "["+strings.Join(names, ", ")+"]"))
}

// Dup3 is dup3(2).
func (b *Builder) Dup3(from Arg, to int, flags int) OpRef {
	return b.Call(unix.SYS_DUP3, "dup3", from, Int(to), Flags(flags, &openFlags))
}

// Fcntl is fcntl(2).
func (b *Builder) Fcntl(fd Arg, cmd int, name string, arg int) OpRef {
	return b.Call(unix.SYS_FCNTL, "fcntl", fd, Named(cmd, name), Int(arg))
}

// Ioctl is ioctl(2).
func (b *Builder) Ioctl(fd Arg, req uint, name string, arg Arg) OpRef {
	return b.Call(unix.SYS_IOCTL, "ioctl", fd, Named(req, name), arg)
}

// Prlimit sets a resource limit of the calling process: prlimit64(2).
func (b *Builder) Prlimit(resource int, name string, soft, hard uint64) OpRef {
	lim := make([]byte, 16)
	binary.NativeEndian.PutUint64(lim, soft)
	binary.NativeEndian.PutUint64(lim[8:], hard)
	return b.Call(unix.SYS_PRLIMIT64, "prlimit64", Int(0), Named(resource, name),
		Bytes(lim, "{rlim_cur="+rlim(soft)+", rlim_max="+rlim(hard)+"}"), Null())
}

func rlim(v uint64) string {
	if v == unix.RLIM_INFINITY {
		return "RLIM64_INFINITY"
	}
	return strconv.FormatUint(v, 10)
}

// Execve is execve(2).
func (b *Builder) Execve(path string, argv, envp []string) OpRef {
	return b.Call(unix.SYS_EXECVE, "execve", Str(path), Strv(argv), Strv(envp))
}

// Execveat is execveat(2) of an open file.
func (b *Builder) Execveat(fd Arg, argv, envp []string) OpRef {
	return b.Call(unix.SYS_EXECVEAT, "execveat", fd, Str(""), Strv(argv), Strv(envp), Flags(unix.AT_EMPTY_PATH, &atFlags))
}

// ExitGroup is exit_group(2).
func (b *Builder) ExitGroup(code int) OpRef {
	return b.Call(unix.SYS_EXIT_GROUP, "exit_group", Int(code))
}

// emitTrace reports the begin of a step: its index and the monotonic clock.
func (b *Builder) emitTrace(step int) {
	w := b.Words(uint64(step), 0, 0)
	b.Call(unix.SYS_CLOCK_GETTIME, "clock_gettime", Named(unix.CLOCK_MONOTONIC, "CLOCK_MONOTONIC"), (w + 1).Addr())
	b.Call(unix.SYS_WRITE, "write", b.Input("trace"), w.Addr(), Int(TraceRecordSize))
}

// TraceRecordSize is the size of what a traced step writes: step index, seconds and nanoseconds of
// CLOCK_MONOTONIC, each 64 bits.
const TraceRecordSize = 24
