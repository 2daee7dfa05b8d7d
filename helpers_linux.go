package caisson

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// idmaps holds user namespaces that nobody lives in, one for each map that mounts have been mapped with.
var idmaps struct {
	mu    sync.Mutex
	files map[string]*os.File
}

// idmapNamespace returns a user namespace with the given maps, for mount_setattr(2). It belongs to the host program for
// good; programs use few different maps.
func idmapNamespace(m namespaces.IDMaps) (*os.File, error) {
	idmaps.mu.Lock()
	defer idmaps.mu.Unlock()
	key := m.String()
	if f := idmaps.files[key]; f != nil {
		return f, nil
	}
	f, err := stage.UserNamespace(func(pid int) error { return namespaces.WriteMaps(context.Background(), pid, nil, m) })
	if err != nil {
		return nil, err
	}
	if idmaps.files == nil {
		idmaps.files = map[string]*os.File{}
	}
	idmaps.files[key] = f
	return f, nil
}

// openNamespace opens a namespace that is to be joined.
func openNamespace(k namespaces.Kind, n namespaces.Namespace) (*os.File, error) {
	path := n.Path()
	switch {
	case n.File() != nil:
		fd, err := unix.FcntlInt(n.File().Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		return os.NewFile(uintptr(fd), n.File().Name()), nil
	case n.PID() != 0:
		path = "/proc/" + strconv.Itoa(n.PID()) + "/ns/" + k.ProcName()
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("join %s namespace: %w", k, err)
	}
	return f, nil
}

// cgroupView says which cgroup filesystem a container sees.
var cgroupView = sync.OnceValue(func() rootfs.CgroupView {
	m, err := cgroups.Default()
	if err != nil {
		return rootfs.CgroupView{}
	}
	l := m.Layout()
	v := rootfs.CgroupView{Version: 2}
	for _, h := range l.Hierarchies {
		if h.Version == 1 {
			v.Version = 1
			v.Hierarchies = append(v.Hierarchies, h.Name)
		}
	}
	if len(l.Hierarchies) == 0 {
		v.Version = 0
	}
	return v
})

// layersOf lists the directories of a root filesystem in which /etc can be, the topmost first.
func layersOf(d *rootfs.Description) []rootfs.Layer {
	layers := d.Layers
	for _, p := range d.Parts {
		if p.Layer != nil && (p.Target == "/etc" || p.Target == "/") {
			l := *p.Layer
			if p.Target == "/etc" && l.File == nil {
				l.Path = strings.TrimSuffix(l.Path, "/etc") + "/"
			}
			layers = append(layers, l)
		}
	}
	return layers
}

func openLayer(l rootfs.Layer) (*rootfs.Root, error) {
	if l.File == nil {
		return rootfs.OpenRoot(l.Path)
	}
	fd, err := unix.FcntlInt(l.File.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return rootfs.NewRoot(os.NewFile(uintptr(fd), l.File.Name()))
}

// makeGroup makes the container's cgroup. It is recorded beforehand, so that another program can remove it if this
// one is killed.
func (r *running) makeGroup(ctx context.Context, name string, res cgroups.Resources, cfg cgroups.Config) (*cgroups.Group, error) {
	strike, err := recordGroup(name, cfg.Parent)
	if err != nil {
		return nil, err
	}
	g, err := cgroups.New(ctx, name, res, cfg)
	if err != nil {
		strike()
		return nil, err
	}
	r.unrecord = strike
	r.undo.add(func() error {
		if r.pidfd != nil {
			return nil // supervise removes it when its processes are gone
		}
		return r.removeGroup()
	})
	return g, nil
}

func (r *running) describeLimits(res cgroups.Resources) {
	if m := res.Memory.Max; m > 0 {
		r.applied("memory limit", byteSize(m))
	}
	if n := res.CPU.CPUs; n > 0 {
		r.applied("CPU limit", fmt.Sprintf("%g CPUs", n))
	}
	if n := res.Pids.Max; n > 0 {
		r.applied("process limit", strconv.FormatInt(n, 10))
	}
}

// byteSize prints a size as people write it.
func byteSize(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return strconv.FormatFloat(float64(n)/float64(int64(1)<<u.shift), 'g', 4, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// check plans a start and releases what that took.
func (c *Container) check(ctx context.Context) error {
	r := &running{spec: c.spec, cgroup: -1, m: &machine{newPID: true}, files: map[string]int{}, fds: map[string]int{}}
	defer r.close()
	if err := r.plan(ctx); err != nil {
		return err
	}
	return r.compile()
}

func (c *Container) explain(ctx context.Context, w io.Writer) error {
	r := &running{spec: c.spec, cgroup: -1, m: &machine{newPID: true}, files: map[string]int{}, fds: map[string]int{}}
	defer r.close()
	if err := r.plan(ctx); err != nil {
		return err
	}
	r.planLimits()
	if err := r.compile(); err != nil {
		return err
	}
	flags := r.ns | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND
	if r.cgroup >= 0 {
		flags |= unix.CLONE_INTO_CGROUP
	}
	if _, err := fmt.Fprintf(w, "# make the container's first process\nclone3({flags=%s, exit_signal=SIGCHLD}, 88)\nexecveat(<stage>, \"\", [\"caisson-stage\"], NULL, AT_EMPTY_PATH)\n",
		program.CloneFlagNames(flags)); err != nil {
		return err
	}
	return r.prog.Explain(w)
}

// planLimits says how the cgroup would be entered, without making one.
func (r *running) planLimits() {
	m, err := cgroups.Default()
	if err != nil {
		return
	}
	want := cgroups.Pids | cgroups.Memory | cgroups.CPUAcct
	if c := r.spec.process.resources.CPU; c != (cgroups.CPUResources{}) {
		want |= cgroups.CPU
	}
	for _, a := range m.Check() {
		switch {
		case !a.Usable || !want.Has(a.Controller):
		case a.Version == 1:
			r.m.joins++
		default:
			r.cgroup = 0
		}
	}
	if m.Mode() == cgroups.ModeHybrid && r.m.joins > 0 {
		r.cgroup = 0
	}
	for i := range r.m.joins {
		r.fds["cgroup "+strconv.Itoa(i)] = 0
	}
}
