package cgroups

import (
	"context"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// A Manager knows the layout of control groups on this machine and makes groups in it. It is safe for use by many
// goroutines. Most programs need only [Default] and the functions of this package that use it.
type Manager struct {
	layout Layout

	mu      sync.Mutex
	parents map[parentKey]parentPlace // default parents found so far
	retired []int                     // descriptors of parents that are gone, perhaps still in use by another call

	scope   *scope // for groups that go with this program; nil until needed
	lasting *scope // for those that outlive it

	sdMu   sync.Mutex
	warden *warden // nil until asked for

	debtMu sync.Mutex
	debts  map[string]*debt // by directory

	programs programCache // device programs loaded so far
	devices  error        // why no device program can be attached on v2
}

type parentKey struct {
	hierarchy int
	need      Controllers
	noSystemd bool
	only      where
}

type parentPlace struct {
	parentDir
	at where
}

type parentDir struct {
	path string
	fd   int
}

// defaultManager is that of [Default], once it could be made.
var defaultManager struct {
	sync.Mutex
	m *Manager
}

// Default returns the Manager of the process, made at the first call. Where groups are mounted and which group the
// process is in are looked up then and remembered: a program that is moved to another group, or enters another mount
// namespace, uses [NewManager] afterwards. A failure is not remembered: the next call looks again.
func Default() (*Manager, error) {
	defaultManager.Lock()
	defer defaultManager.Unlock()
	if defaultManager.m != nil {
		return defaultManager.m, nil
	}
	m, err := NewManager()
	if err == nil {
		defaultManager.m = m
	}
	return m, err
}

// NewManager looks at the machine afresh: /proc/self/mountinfo, /proc/self/cgroup and, on v2, the list of
// controllers. It needs no privilege. A machine without control groups is no error: its [Manager.Layout] has
// [ModeNone], and New answers an [*UnsupportedError].
func NewManager() (*Manager, error) {
	mounts, err := linux.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	self, err := linux.ReadFile("/proc/self/cgroup")
	if err != nil && !os.IsNotExist(err) { // a kernel without cgroups has no such file
		return nil, err
	}
	m := &Manager{parents: map[parentKey]parentPlace{}}
	m.layout = layoutFrom(string(mounts), string(self), func(mountpoint string) string {
		text, _ := readText(unix.AT_FDCWD, mountpoint+"/cgroup.controllers")
		if m.devices = probeDevices(mountpoint); m.devices == nil {
			text += " devices"
		}
		return text
	})
	return m, nil
}

// Close frees what the Manager keeps open; no other call may be under way. Groups made by it live on; those in a scope
// that systemd made for the program only while they have processes, unless they are to outlive it (Config.Outlive). What can be taken back is ([Manager.TakeBack]). The Manager
// of [Default] needs no Close.
func (m *Manager) Close() error {
	m.TakeBack()
	m.stopTimers()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parents { // several may share a descriptor
		if p.at != scoped && !slices.Contains(m.retired, p.fd) {
			m.retired = append(m.retired, p.fd)
		}
	}
	clear(m.parents)
	for _, fd := range m.retired {
		unix.Close(fd)
	}
	m.retired = nil
	m.programs.close()
	for _, of := range []**scope{&m.scope, &m.lasting} {
		if *of != nil {
			(*of).close()
			*of = nil
		}
	}
	return nil
}

// Layout returns what was found.
func (m *Manager) Layout() Layout {
	l := m.layout
	l.Hierarchies = slices.Clone(l.Hierarchies)
	return l
}

// Mode returns the mode of the layout.
func (m *Manager) Mode() Mode { return m.layout.Mode }

// homes returns the hierarchies a controller can be had from, best first. What every v2 group does by itself is
// taken from there before a v1 controller is asked.
func (m *Manager) homes(c Controllers) (list []int) {
	for i := range m.layout.Hierarchies {
		if m.layout.Hierarchies[i].Controllers.Has(c) {
			list = append(list, i) // v2 comes first
		}
	}
	return list
}

// Check asks for every controller whether this process can use it, and where. It creates nothing; it may ask systemd
// which controllers a scope would have.
func (m *Manager) Check() []Availability {
	var list []Availability
	all := Controllers(all)
	all.each(func(c Controllers) { list = append(list, m.check(c)) })
	return list
}

func (m *Manager) check(c Controllers) Availability {
	a := Availability{Controller: c}
	h, dir, at, err := m.find(c)
	if h >= 0 {
		a.Version = m.layout.Hierarchies[h].Version
	}
	if err == nil {
		a.Parent, a.Usable, a.Systemd = dir, true, at == scoped
		return a
	}
	if u, ok := err.(*UnsupportedError); ok {
		a.Reason, a.Remedy = u.Reason, u.Remedy
		if u.Err != nil {
			a.Reason += ": " + u.Err.Error()
		}
	} else {
		a.Reason = err.Error()
	}
	return a
}

// find looks for the hierarchy and default parent of one controller; h is -1 when it is in no hierarchy.
func (m *Manager) find(c Controllers) (h int, dir string, at where, err error) {
	homes := m.homes(c)
	if len(homes) == 0 {
		return -1, "", anywhere, m.missing(c)
	}
	for _, h = range homes {
		if dir, at, err = m.locate(&search{ctx: context.Background()}, h, c); err == nil {
			return h, dir, at, nil
		}
	}
	return h, "", anywhere, err
}

// missing says that a controller is in no hierarchy.
func (m *Manager) missing(c Controllers) error {
	u := &UnsupportedError{Controller: c, Mode: m.layout.Mode,
		Reason: "the kernel lacks it, or it is in no mounted hierarchy"}
	if c == Devices && m.devices != nil {
		u.Knob, u.Err, u.Remedy = deviceProgramFile, m.devices, remedyBPF
		u.Reason = "no device program can be attached to a group"
		return u
	}
	switch m.layout.Mode {
	case ModeNone:
		u.Reason = "no cgroup file system is mounted here"
		u.Remedy = "mount cgroup2 on /sys/fs/cgroup"
	case ModeV2:
		u.Reason = "the group at the mount point does not have it (cgroup.controllers)"
		u.Remedy = "in a container: have its engine delegate it; else enable it in the kernel"
	}
	return u
}
