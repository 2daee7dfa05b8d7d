package caisson

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// restore has CRIU make the processes of a container, where start would make a stage that becomes its command.
//
//	host ── clone, in the container's cgroup ──▶ criu    in a mount namespace of its own, with the root filesystem on a directory
//	host ◀──────────── first process ──────────── criu   a child of the host's (--restore-sibling), stopped
//	host: hands it to the keeper, then lets it go on
func (r *running) restore(ctx context.Context) (*Process, error) {
	dir, err := openCheckpoint(r.spec.restore.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	n, err := readNote(dir)
	if err == nil {
		err = checkParents(dir.Name())
	}
	if err != nil {
		return nil, err
	}
	criu, err := findCRIU(ctx, r.spec.restore.Program)
	if err != nil {
		return nil, err
	}
	if err := r.acquire(ctx, false); err != nil {
		return nil, err
	}
	defer r.streams.closeChild()
	if err := r.mayRestore(ctx); err != nil {
		return nil, err
	}
	pid, err := r.runRestore(ctx, criu, dir.Name(), &n)
	if err == nil {
		err = r.takeOver(ctx, pid)
	}
	if err != nil {
		return nil, errors.Join(err, r.endRestored())
	}
	p := r.process(false)
	r.openRoot()
	r.settle()
	r.made(p)
	return p, nil
}

// mayRestore refuses what a restored container cannot have on this machine.
func (r *running) mayRestore(ctx context.Context) error {
	if what, remedy := r.notRestorable(); what != "" {
		return withRemedy(remedy, "%w: a restored container cannot have a %s", ErrUnsupported, what)
	}
	if r.group != nil && r.cgroup < 0 {
		return withRemedy("leave the limits out (WithoutCgroup)", "%w: a container can be restored in a cgroup of version 2 only", ErrUnsupported)
	}
	if r.group != nil && (tryBirth(ctx) || !stage.CanCloneInto()) {
		return withRemedy("start this program in another cgroup, or leave the limits out (WithoutCgroup)", "%w: CRIU cannot be born in the container's cgroup: the kernel kills it, since this program's own "+
			"has been killed before, or there is no clone3", ErrUnsupported)
	}
	if k := r.layout.Root.Kind; k != rootfs.KindBind && k != rootfs.KindOverlay {
		return fmt.Errorf("%w: this kind of root filesystem cannot be had on a directory, which CRIU needs", ErrUnsupported)
	}
	return nil
}

// restoreArgs are the arguments for CRIU, and the files that it is to have from descriptor 3 on.
func (r *running) restoreArgs(n *checkpointed, images, work, root string) (args []string, files []*os.File, err error) {
	args = append([]string{"restore", "--images-dir", images, "--work-dir", work, "--log-file", restoreLog, "-v1", "--root", root,
		"--restore-detached", "--restore-sibling", "--leave-stopped", "--pidfile", filepath.Join(filepath.Dir(root), pidFile)}, slices.Concat(sharedArgs(n), r.spec.restore.args())...)
	if r.group != nil {
		path, err := unifiedPath(r.entry.Paths())
		if err != nil {
			return nil, nil, err
		}
		args = append(args, "--cgroup-root", path)
	}
	if have := r.spec.binds(); !slices.Equal(n.Binds, have) {
		return nil, nil, invalid("WithMount", "the checkpoint has bind mounts on %q, and asked for are %q", n.Binds, have)
	}
	for _, m := range r.spec.mounts {
		if m.Type == rootfs.TypeBind {
			if m.Source == "" {
				return nil, nil, invalid("WithMount", "the source of %s must be a path, where a container is restored", m.Target)
			}
			args = append(args, "--external", "mnt["+bindKey(filepath.Clean(m.Target))+"]:"+m.Source)
		}
	}
	if n.Net != r.joinsNet() {
		return nil, nil, invalid("WithRestore", "the container of the checkpoint was in a network namespace of others: %t; this one is: %t", n.Net, r.joinsNet())
	}
	if n.Net {
		args = append(args, "--inherit-fd", "fd[3]:"+netKey)
		files = append(files, r.joins.files[namespaces.Net])
	}
	known := map[string]bool{}
	for i, name := range n.Streams {
		if name == "" || known[name] {
			continue
		}
		f := r.stream(i)
		if f == nil {
			return nil, nil, invalid("WithRestore", "descriptor %d of the checkpoint is connected with the host program, and here with nothing (WithStdin, WithStdout, WithStderr, WithExtraFiles)", i)
		}
		known[name] = true
		args = append(args, "--inherit-fd", "fd["+strconv.Itoa(3+len(files))+"]:"+name)
		files = append(files, f)
	}
	return args, files, nil
}

// args are those for what was asked of CRIU alone.
func (cfg *RestoreConfig) args() (args []string) {
	if cfg.AutoDedup {
		args = append(args, "--auto-dedup")
	}
	if cfg.LazyPages {
		args = append(args, "--lazy-pages")
	}
	if cfg.LSMProfile != "" {
		args = append(args, "--lsm-profile", cfg.LSMProfile)
	}
	if cfg.LSMMountContext != "" {
		args = append(args, "--lsm-mount-context", cfg.LSMMountContext)
	}
	return args
}

// stream is what descriptor i of the first process is to be, nil where that is nothing of the host program's.
func (r *running) stream(i int) *os.File {
	if extra := r.spec.process.extraFiles; i >= 3 {
		if i-3 < len(extra) {
			return extra[i-3]
		}
		return nil
	}
	if i < len(r.streams.child) {
		return r.streams.child[i]
	}
	return nil
}

// unifiedPath is a group's path below the v2 hierarchy's root.
func unifiedPath(paths map[string]string) (string, error) {
	dir, ok := paths["unified"]
	if !ok {
		return "", fmt.Errorf("%w: the group is not in the v2 hierarchy", ErrUnsupported)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", err
	}
	dev := st.Dev
	for top := dir; ; top = filepath.Dir(top) { // the mount begins where the device changes
		if err := unix.Stat(filepath.Dir(top), &st); err != nil {
			return "", err
		}
		if st.Dev != dev || top == "/" {
			return filepath.Join("/", strings.TrimPrefix(dir, top)), nil
		}
	}
}

// The files that a restore makes, in memory.
const (
	restoreLog = "restore.log"
	pidFile    = "pid"
)

// runRestore runs CRIU in a mount namespace where the root filesystem is mounted on a directory, which nobody else
// sees, and returns the first process that it made.
func (r *running) runRestore(ctx context.Context, criu, images string, n *checkpointed) (int, error) {
	base, err := journal.Base("restore", true)
	if err != nil {
		return 0, err
	}
	defer base.Close()
	var pid int
	err = namespaces.Do(func() (err error) {
		pid, err = r.restoreHere(ctx, criu, images, base.Name(), n)
		return err
	}, namespaces.In(namespaces.Mount, namespaces.New()))
	return pid, err
}

// restoreHere is runRestore in that namespace, on a thread that is given up afterwards.
func (r *running) restoreHere(ctx context.Context, criu, images, base string, n *checkpointed) (int, error) {
	if err := unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=16m"); err != nil {
		return 0, fmt.Errorf("mount tmpfs on %s: %w", base, err)
	}
	root, work := filepath.Join(base, "root"), filepath.Join(base, "work")
	if err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(work, 0o700)); err != nil {
		return 0, err
	}
	if err := mountRoot(r.layout.Root, root); err != nil {
		return 0, fmt.Errorf("mount the root filesystem on %s: %w", root, err)
	}
	work = cmp.Or(r.spec.restore.WorkDir, work)
	args, files, err := r.restoreArgs(n, images, work, root)
	if err != nil {
		return 0, err
	}
	if err := r.inherit(); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, criu, args...)
	cmd.ExtraFiles = files
	if r.group != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: r.cgroup}
	}
	r.began = time.Now()
	if err := runCRIU(cmd, filepath.Join(work, restoreLog)); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(base, pidFile))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// inherit gives this thread what CRIU does not restore, or not in every version, so that the processes have it from CRIU: no_new_privs,
// and a session keyring of their own.
func (r *running) inherit() error {
	if !r.spec.process.allowNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	if r.m.keyring == keyringKeep {
		return nil
	}
	if _, _, e := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0); e != 0 {
		return os.NewSyscallError("keyctl", e)
	}
	return nil
}

// mountRoot mounts a root filesystem on a directory, as the stage would.
func mountRoot(d *rootfs.Description, at string) error {
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	name := func(l rootfs.Layer) (string, error) { // the characters of a path mean nothing to overlayfs in this form
		f := l.File
		if f == nil {
			var err error
			if f, err = os.OpenFile(l.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
				return "", err
			}
			open = append(open, f)
		}
		return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())), nil
	}
	if d.Kind == rootfs.KindBind {
		return bindRoot(d, at, name)
	}
	var lower []string
	for _, l := range d.Layers {
		s, err := name(l)
		if err != nil {
			return err
		}
		lower = append(lower, s)
	}
	opts := "lowerdir=" + strings.Join(lower, ":") + ",redirect_dir=nofollow,metacopy=off"
	if !d.Upper.None {
		for _, part := range []string{"upper", "work"} {
			s, err := name(rootfs.Layer{Path: filepath.Join(d.Upper.Dir, part)})
			if err != nil {
				return err
			}
			opts += "," + part + "dir=" + s
		}
	}
	if d.Upper.Volatile {
		opts += ",volatile"
	}
	return os.NewSyscallError("mount", unix.Mount("overlay", at, "overlay", unix.MS_NODEV, opts))
}

func bindRoot(d *rootfs.Description, at string, name func(rootfs.Layer) (string, error)) error {
	l := d.Layers[0]
	src, err := name(l)
	if err != nil {
		return err
	}
	flags := uintptr(unix.MS_BIND)
	if l.Recursive {
		flags |= unix.MS_REC
	}
	if err := unix.Mount(src, at, "", flags, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV}
	if d.Writable {
		attr.Attr_set |= unix.MOUNT_ATTR_NOSUID
	} else {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	how := uint(0)
	if l.Recursive {
		how = unix.AT_RECURSIVE
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(unix.AT_FDCWD, at, how, attr))
}

// takeOver makes the first process, which is stopped, and a child, the container's, and lets all of them go on.
func (r *running) takeOver(ctx context.Context, pid int) error {
	fd, err := linux.PidfdOpen(pid, false)
	if err != nil {
		return err
	}
	defer fd.Close()
	own, err := unix.FcntlInt(fd.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	r.child = &stage.Child{Pid: pid, Pidfd: own}
	if r.det != nil {
		err = r.registerRestored()
	} else if r.keep, err = stage.Keep(own); err != nil {
		err = fmt.Errorf("hand over to the keeper: %w", err)
	}
	if err == nil {
		err = endOf(ctx)
	}
	if err != nil {
		return err
	}
	return r.goOn(ctx)
}

// registerRestored records a detached container that goes on from a checkpoint.
func (r *running) registerRestored() error {
	if err := r.recordDetached(false); err != nil {
		return err
	}
	_, err := r.det.status.WriteAt(state.Released(time.Now()), state.ReleasedAt)
	return err
}

// checkParents refuses a checkpoint that follows one to which others could write.
func checkParents(dir string) error {
	for range maxParents {
		to, err := os.Readlink(filepath.Join(dir, "parent"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsAbs(to) {
			to = dir + "/" + to // not cleaned: the kernel follows links on the way
		}
		if dir, err = filepath.EvalSymlinks(to); err != nil {
			return fmt.Errorf("parent: %w", err)
		}
		f, err := openCheckpoint(dir)
		if err != nil {
			return fmt.Errorf("parent: %w", err)
		}
		f.Close()
	}
	return invalid("WithRestore", "more than %d checkpoints follow each other", maxParents)
}

// maxParents bounds how many checkpoints follow each other.
const maxParents = 1000

// goOn continues the processes that CRIU has left stopped.
func (r *running) goOn(ctx context.Context) error {
	list, err := r.top(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		if err := unix.Kill(p.PID, unix.SIGCONT); err != nil && err != unix.ESRCH {
			return fmt.Errorf("continue process %d: %w", p.PID, err)
		}
	}
	return nil
}

// endRestored ends what a restore that failed has left: the processes are in the container's cgroup, and the first is a
// child of this program.
func (r *running) endRestored() error {
	var children []*os.File
	if r.group != nil {
		pids, _ := r.group.AllProcs()
		for _, pid := range pids {
			if f, err := linux.PidfdOpen(pid, false); err == nil {
				children = append(children, f)
			}
		}
	}
	err := r.killGroup()
	for _, f := range children {
		stage.Reap(int(f.Fd())) // another's child is none of ours
		f.Close()
	}
	if r.child == nil {
		return err
	}
	r.child.Kill()
	if r.keep != nil {
		r.keep()
	}
	unix.Close(r.child.Pidfd)
	r.child = nil
	return err
}
