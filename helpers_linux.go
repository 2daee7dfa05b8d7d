package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
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
func idmapNamespace(ctx context.Context, m namespaces.IDMaps) (*os.File, error) {
	idmaps.mu.Lock()
	defer idmaps.mu.Unlock()
	key := m.String()
	if f := idmaps.files[key]; f != nil {
		return f, nil
	}
	f, err := stage.UserNamespace(func(pid int) error { return namespaces.WriteMaps(ctx, pid, nil, m) })
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
	switch {
	case n.File() != nil:
		if got, err := namespaces.KindOf(n.File()); err != nil {
			return nil, fmt.Errorf("join %v namespace: %w", k, err)
		} else if got != k {
			return nil, fmt.Errorf("join %v namespace: %w: it is a %v namespace", k, namespaces.ErrWrongKind, got)
		}
		fd, err := unix.FcntlInt(n.File().Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		return os.NewFile(uintptr(fd), n.File().Name()), nil
	case n.PID() != 0:
		return joinable(namespaces.Of(k, n.PID()))
	}
	return joinable(namespaces.Open(k, n.Path()))
}

func joinable(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
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
	return rootfs.NewRoot(l.File)
}

// makeGroup makes the container's cgroup. It is recorded beforehand, so that another program can remove it if this
// one is killed.
func (r *running) makeGroup(ctx context.Context, name string, res cgroups.Resources, cfg cgroups.Config) (*cgroups.Group, error) {
	whole := cfg
	whole.Late = false // as the group is in the end
	if g := r.takeGroup(&res, &whole); g != nil {
		return g, nil
	}
	strike, err := r.noteGroup(name, cfg.Parent)
	if err != nil {
		return nil, err
	}
	g, err := cgroups.New(ctx, name, res, cfg)
	if err != nil {
		strike()
		return nil, err
	}
	if strike, err = r.noteMadeGroup(g, strike); err != nil {
		return nil, errors.Join(err, g.Delete(ctx))
	}
	r.keepGroup(&usedGroup{Group: g, strike: strike, res: res, cfg: whole})
	return g, nil
}

// keepGroup makes the container the owner of a group.
func (r *running) keepGroup(u *usedGroup) {
	if r.unrecord = u.strike; r.recycles() {
		r.lent = u
	}
	r.undo.add(r.removeGroup) // once more, where supervise could not
}

// groupName is the name of a group that was given none.
func groupName(id string) string {
	name := "caisson-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(groupSerial.Add(1), 10)
	if id != "" {
		name = "caisson-" + id + name[len("caisson"):]
	}
	return name
}

func (r *running) describeLimits(res cgroups.Resources) { r.iso = append(r.iso, limitMeasures(res)...) }

// ptrPrctl is prctl(2) with a pointer as its last argument.
func ptrPrctl(option int, a, b, c uintptr, p *uint64) error {
	_, _, e := unix.Syscall6(unix.SYS_PRCTL, uintptr(option), a, b, c, uintptr(unsafe.Pointer(p)), 0)
	if e != 0 {
		return e
	}
	return nil
}
