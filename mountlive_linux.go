package caisson

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// mounting is what is known about mounts that were made in a container while it runs.
type mounting struct {
	turn turn // one at a time
	mu   sync.Mutex
	made []state.Mount // of a container that does not outlive this program
}

// mount attaches mounts, all or none.
//
//	visitor: [namespaces with the host's mounts] sources as detached mounts ──▶ [container's] target opened ─▶ shown to the host
//	host:    notes the mount's id, judges the target, releases ──▶ visitor: move_mount
func (r *running) mount(ctx context.Context, mounts []rootfs.Mount) error {
	if err := r.mounting.turn.take(ctx); err != nil {
		return err
	}
	defer r.mounting.turn.pass()
	flags, userns, err := r.mountNamespaces()
	if err != nil {
		return err
	}
	env, done, err := r.lateEnv(userns, mounts)
	if err != nil {
		return err
	}
	defer done()
	plan, err := rootfs.Late(env, mounts)
	if err != nil {
		return &OptionError{"Mount", err}
	}
	l := &lateMounts{r: r, mounts: mounts, plan: plan}
	if _, err := r.visit(ctx, l.visiting(flags, env)); err != nil {
		l.close()
		return errors.Join(err, l.undo(ctx))
	}
	return nil
}

// mountNamespaces is whichNamespaces, and an error where the container has the host's mounts.
func (r *running) mountNamespaces() (uint64, usernsMode, error) {
	flags, userns, err := r.whichNamespaces()
	if err == nil && flags&unix.CLONE_NEWNS == 0 {
		err = fmt.Errorf("%w: the container has no mount namespace of its own", ErrUnsupported)
	}
	return flags, userns, err
}

// lateEnv is what is known for mounts in the container.
func (r *running) lateEnv(userns usernsMode, mounts []rootfs.Mount) (env rootfs.Env, done func(), err error) {
	env = rootfs.Env{UserNamespace: userns != usernsNone, Unprivileged: !privileged(), Features: rootfs.Probe(), MountLabel: r.spec.labelOfMounts()}
	mapped := func(m rootfs.Mount) bool { return m.IDMap != rootfs.Unmapped && m.IDMapFile == nil }
	if !env.UserNamespace || env.Unprivileged || !slices.ContainsFunc(mounts, mapped) {
		return env, func() {}, nil
	}
	ns, err := namespaces.Open(namespaces.User, "/proc/"+strconv.Itoa(r.child.Pid)+"/ns/user")
	if err != nil {
		return env, nil, err
	}
	if r.pidfd.Ended() { // so the number may be another's
		ns.Close()
		return env, nil, fmt.Errorf("%w: the container has ended", ErrState)
	}
	env.IDMap = ns
	return env, func() { ns.Close() }, nil
}

// lateMounts is one call of Mount.
type lateMounts struct {
	r      *running
	mounts []rootfs.Mount
	plan   *rootfs.Plan
	tree   int           // the mount that was shown last; -1: none
	noted  []state.Mount // which may have been attached
}

func (l *lateMounts) visiting(flags uint64, env rootfs.Env) visiting {
	l.tree = -1
	kinds := uint64(unix.CLONE_NEWNS)
	if slices.ContainsFunc(l.mounts, func(m rootfs.Mount) bool { return m.Type == rootfs.TypeMqueue }) {
		kinds |= unix.CLONE_NEWIPC
	}
	w := visiting{kinds: kinds, plan: l.plan, inside: l.attach, answer: l.answer}
	if !env.Unprivileged {
		w.before = func(v *visit) { l.plan.LateSources(v.Builder) }
	}
	if own := env.Unprivileged && flags&unix.CLONE_NEWUSER != 0; own || l.plan.HasOverlays() {
		w.between = func(v *visit) { l.prepare(v, own) }
	}
	return w
}

// prepare emits what takes a copy of the host's mount namespace: one in which the container's user namespace may open
// sources, and in which layers can be attached. It vanishes when it is left.
func (l *lateMounts) prepare(v *visit, sources bool) {
	v.Step("make", "a mount namespace to prepare in")
	v.Unshare(unix.CLONE_NEWNS)
	v.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if sources {
		l.plan.LateSources(v.Builder)
	}
	if l.plan.HasOverlays() {
		l.plan.LateOverlays(v.Builder)
	}
}

// attach emits what is done in the container's mount namespace.
func (l *lateMounts) attach(v *visit) {
	for i := range l.mounts {
		tree, target := l.plan.LateTarget(v.Builder, i)
		v.show(tree)
		v.show(target)
		stage.EmitWait(v.Builder)
		v.MoveMount(tree, target, "")
	}
}

// answer takes note of a mount, and judges the target that follows.
func (l *lateMounts) answer(fd int) (bool, error) {
	if l.tree < 0 {
		l.tree = fd
		return false, nil
	}
	defer l.close()
	defer unix.Close(fd)
	m := &l.mounts[len(l.noted)]
	var sf unix.Statfs_t
	if err := unix.Fstatfs(fd, &sf); err != nil {
		return false, os.NewSyscallError("fstatfs", err)
	}
	if sf.Type == unix.PROC_SUPER_MAGIC && !rootfs.OverProc(m.Target) {
		return false, fmt.Errorf("mount on %s: it leads into procfs: %w", m.Target, unix.ELOOP)
	}
	made, _, err := lookMount(l.tree)
	if err != nil {
		return false, err
	}
	made.Target = m.Target
	l.noted = append(l.noted, made)
	return true, l.r.changeMounts(func(all []state.Mount) []state.Mount { return append(all, made) })
}

// close forgets the mount that was shown last.
func (l *lateMounts) close() {
	if l.tree >= 0 {
		unix.Close(l.tree)
		l.tree = -1
	}
}

// undo takes away what was attached before a failure.
func (l *lateMounts) undo(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var faults []error
	for _, m := range slices.Backward(l.noted) {
		err := l.r.takeAway(ctx, &m, m.Target, true)
		if err == nil || errors.Is(err, ErrNotMounted) || errors.Is(err, ErrState) { // the latter: with the container everything went
			err = l.r.forgetMount(m)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("and while undoing it: unmount %s: %w", m.Target, err))
		}
	}
	return errors.Join(faults...)
}

func (r *running) unmount(ctx context.Context, target string, lazy, any bool) error {
	if err := r.mounting.turn.take(ctx); err != nil {
		return err
	}
	defer r.mounting.turn.pass()
	if _, _, err := r.mountNamespaces(); err != nil {
		return err
	}
	all, err := r.madeMounts()
	if err != nil {
		return err
	}
	i := len(all) - 1
	for i >= 0 && all[i].Target != target {
		i--
	}
	switch {
	case i < 0 && any:
		return r.takeAway(ctx, nil, target, lazy)
	case i < 0:
		return fmt.Errorf("%w by Mount", ErrNotMounted)
	}
	err = r.takeAway(ctx, &all[i], target, lazy)
	if err == nil || errors.Is(err, ErrNotMounted) {
		err = errors.Join(err, r.forgetMount(all[i]))
	}
	return err
}

// takeAway unmounts what m is, or, where it is nil, whatever is mounted at target.
func (r *running) takeAway(ctx context.Context, m *state.Mount, target string, lazy bool) error {
	places := []string{target}
	if m != nil {
		if at := r.mountPoint(m.ID); at != "" && at != target {
			places = []string{at, target}
		}
	}
	var err error
	for _, at := range places {
		if err = r.umount(ctx, m, at, lazy); !errors.Is(err, ErrNotMounted) {
			break
		}
	}
	return err
}

// umount unmounts what is mounted at a path. The directory of the path is opened once; the name in it cannot be given to
// anything else as long as something is mounted there (rename(2), EBUSY). What is mounted is shown to the host, which
// recognizes it.
func (r *running) umount(ctx context.Context, m *state.Mount, at string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	shown := false
	_, err := r.visit(ctx, visiting{kinds: unix.CLONE_NEWNS, inside: func(v *visit) {
		v.Step("unmount", at)
		v.Fchdir(v.plan.OpenDir(v.Builder, path.Dir(at)))
		found := v.Openat(program.Cwd(), path.Base(at), unix.O_PATH|unix.O_NOFOLLOW, 0)
		v.pass(found)
		v.Close(found.Result())
		stage.EmitWait(v.Builder)
		v.Umount2(path.Base(at), flags)
	}, answer: func(fd int) (bool, error) {
		shown = true
		err := recognize(fd, m)
		unix.Close(fd) // else it is in use
		return err == nil, err
	}})
	switch {
	case !shown && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)):
		return fmt.Errorf("%w: %w", ErrNotMounted, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// recognize is an error unless fd is the mount m, or, where m is nil, the root of any.
func recognize(fd int, m *state.Mount) error {
	is, root, err := lookMount(fd)
	switch {
	case err != nil:
		return err
	case !root:
		return ErrNotMounted
	case m != nil && (is.ID != m.ID || is.Unique != m.Unique):
		return fmt.Errorf("%w: something else is mounted there", ErrNotMounted)
	}
	return nil
}

// lookMount tells which mount a file is in, and whether it is its root. The unique number (Linux 6.8) is never given again.
func lookMount(fd int) (m state.Mount, root bool, err error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st); err != nil {
		return m, false, os.NewSyscallError("statx", err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 || st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return m, false, fmt.Errorf("%w: mounts have no numbers here: Linux 5.8 is needed", ErrUnsupported)
	}
	m.ID, root = st.Mnt_id, st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID_UNIQUE, &st); err == nil && st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
		m.Unique = st.Mnt_id
	}
	return m, root, nil
}

// mountPoint tells where the container's first process sees a mount; "" if it does not, or the container has ended. It is
// where to look, no more: what is there is recognized again.
func (r *running) mountPoint(id uint64) string {
	f, err := os.Open("/proc/" + strconv.Itoa(r.child.Pid) + "/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	at, number := "", strconv.FormatUint(id, 10)
	for s := bufio.NewScanner(f); s.Scan(); {
		if field := strings.Fields(s.Text()); len(field) > 4 && field[0] == number {
			at = linux.Unescape(field[4])
		}
	}
	if !cleanAbs(at) || r.pidfd.Ended() {
		return ""
	}
	return at
}

// madeMounts are those that Mount attached and Unmount has not taken away, in their order.
func (r *running) madeMounts() (all []state.Mount, err error) {
	err = r.changeMounts(func(l []state.Mount) []state.Mount { all = slices.Clone(l); return l })
	return all, err
}

func (r *running) forgetMount(m state.Mount) error {
	return r.changeMounts(func(all []state.Mount) []state.Mount {
		return slices.DeleteFunc(all, func(o state.Mount) bool { return o == m })
	})
}

// changeMounts changes what is noted about mounts: in the record of a container that outlives this program, so that others
// know of them too.
func (r *running) changeMounts(f func([]state.Mount) []state.Mount) error {
	if r.det != nil {
		return r.det.change(func(rec *state.Record) bool {
			n := len(rec.Mounts)
			rec.Mounts = f(rec.Mounts)
			return len(rec.Mounts) != n
		})
	}
	r.mounting.mu.Lock()
	defer r.mounting.mu.Unlock()
	r.mounting.made = f(r.mounting.made)
	return nil
}
