//go:build linux

package stage

import (
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// rootDirs are the directories of the template. A start mounts its scratch space on one of them: the one that the
// host's own root has too, since the same program may run without a template.
var rootDirs = []string{"mnt", "srv", "media", "opt", "home", "usr"}

var templates struct {
	mu  sync.Mutex
	fds [2]int // without and with proc and sysfs; 0: not made yet
}

// Template returns the descriptor of a mount namespace that holds a read-only tmpfs with a few empty directories, and
// nothing of the host's. A stage that enters it and then makes its own copy does not pay for the mounts of the host:
// copying them costs a microsecond each. It is made once for the host program and belongs to it for good. It needs
// CAP_SYS_ADMIN.
//
// With userns it also holds proc and sysfs, without which a user namespace could not mount its own
// (user_namespaces(7)). The other one does not: a new root may cover it and stay so.
func Template(userns bool) (int, error) {
	templates.mu.Lock()
	defer templates.mu.Unlock()
	fd := &templates.fds[0]
	if userns {
		fd = &templates.fds[1]
	}
	if *fd != 0 {
		return *fd, nil
	}
	made, err := makeTemplate(userns)
	if err != nil {
		return -1, err
	}
	*fd = made
	return made, nil
}

func makeTemplate(userns bool) (int, error) {
	b := program.NewBuilder(false)
	var attach []func()
	b.Step("make", "mount namespace")
	b.Unshare(unix.CLONE_NEWNS)
	b.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	fs := b.Fsopen("tmpfs")
	b.FsconfigString(fs.Result(), "mode", "0555")
	b.FsconfigString(fs.Result(), "size", "4k")
	b.FsconfigCreate(fs.Result())
	m := b.Fsmount(fs.Result(), unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	for _, dir := range rootDirs {
		b.Mkdirat(m.Result(), dir, 0o755)
	}
	kernel := []struct{ fstype, dir string }{{"proc", "proc"}, {"sysfs", "sys"}}
	if !userns {
		kernel = nil
	}
	// A host program that is in one itself and does not own its network or pid namespace may not mount them: it
	// shows those that it has.
	for _, k := range kernel {
		b.Step("mount", k.fstype)
		b.Mkdirat(m.Result(), k.dir, 0o555)
		tree, clone, made := b.Words(0), b.NewLabel(), b.NewLabel()
		f := b.Fsopen(k.fstype).IgnoreTo(clone, unix.EPERM)
		b.FsconfigCreate(f.Result()).IgnoreTo(clone, unix.EPERM)
		fm := b.Fsmount(f.Result(), unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC).IgnoreTo(clone, unix.EPERM)
		b.Copy(fm, tree)
		b.Chdir("/").Then(made)
		b.Mark(clone)
		b.Copy(b.OpenTree(program.Cwd(), "/"+k.dir, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE), tree)
		b.Mark(made)
		attach = append(attach, func() { b.MoveMount(tree.Value(), m.Result(), k.dir) })
	}
	b.Step("make", "an empty root")
	b.MoveMount(m.Result(), program.Cwd(), "/")
	for _, f := range attach {
		f()
	}
	b.Fchdir(m.Result())
	b.PivotRoot(".", ".")
	b.Umount2(".", unix.MNT_DETACH)
	b.Mount("", ".", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	EmitSync(b, 1)
	b.ExitGroup(0)
	p, err := b.Build()
	if err != nil {
		return -1, err
	}
	return namespaceOf(p, "mnt", nil)
}

// InUserNamespace calls f with the number of a process that is in a user namespace, which is there as long as f runs.
func InUserNamespace(user *os.File, f func(pid int) error) error {
	b := program.NewBuilder(false)
	b.Step("join", "user namespace")
	b.Setns(b.Input("user namespace"), unix.CLONE_NEWUSER)
	EmitSync(b, 1)
	b.ExitGroup(0)
	p, err := b.Build()
	if err != nil {
		return err
	}
	c, err := Start(Config{Program: p, Files: map[string]int{"user namespace": int(user.Fd())}, Cgroup: -1})
	if err != nil {
		return err
	}
	defer unix.Close(c.Pidfd)
	defer c.Kill()
	defer c.Conn.Close()
	if _, err := c.Conn.Recv(); err != nil {
		return err
	}
	return f(c.Pid)
}

// namespaceOf starts p, which stops at a sync point, and opens one of its namespaces; then the process ends.
func namespaceOf(p *program.Program, name string, prepare func(pid int) error) (int, error) {
	c, err := Start(Config{Program: p, Cgroup: -1})
	if err != nil {
		return -1, err
	}
	defer unix.Close(c.Pidfd)
	defer c.Kill()
	defer c.Conn.Close()
	if _, err := c.Conn.Recv(); err != nil {
		return -1, err
	}
	if prepare != nil {
		if err := prepare(c.Pid); err != nil {
			return -1, err
		}
	}
	path := "/proc/" + strconv.Itoa(c.Pid) + "/ns/" + name
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// UserNamespace makes a user namespace that nobody lives in, for id-mapped mounts. writeMaps writes its id maps.
func UserNamespace(writeMaps func(pid int) error) (*os.File, error) {
	b := program.NewBuilder(false)
	b.Step("make", "user namespace")
	b.Unshare(unix.CLONE_NEWUSER)
	EmitSync(b, 1)
	b.ExitGroup(0)
	p, err := b.Build()
	if err != nil {
		return nil, err
	}
	fd, err := namespaceOf(p, "user", writeMaps)
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}
