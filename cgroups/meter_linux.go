package cgroups

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Meter reads the few figures of a living group that are asked for again and again, from files that it keeps open (at
// most five). It is safe for use by many goroutines.
type Meter struct {
	mu     sync.Mutex
	files  [meterFiles]meterFile
	before time.Duration // CPU time that was used before the group was renewed
}

// A meterFile is one open file and what it says.
type meterFile struct {
	fd    int // -1: the group does not have it
	parse func(text []byte, u *Usage)
}

const meterFiles = 5

// Meter opens the files of a Meter. What the group has no controller for will not be available. Close it after use; it
// does not keep the group from being deleted, after which Read answers [ErrClosed].
func (g *Group) Meter() (*Meter, error) {
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	m := &Meter{}
	if g.before != nil {
		m.before = g.before.CPU.Usage.n
	}
	for i := range m.files {
		m.files[i].fd = -1
	}
	cpu, mem, pids := g.node(CPUAcct), g.node(Memory), g.node(Pids)
	m.open(0, cpu, "cpu.stat", meterCPU, "cpuacct.usage", meterCPUv1)
	m.open(1, mem, "memory.current", meterMemory, "memory.usage_in_bytes", meterMemory)
	m.open(2, mem, "memory.stat", meterInactive, "memory.stat", meterInactiveV1)
	m.open(3, mem, "memory.events", meterOOM, "memory.oom_control", meterOOM)
	m.open(4, pids, "pids.current", meterPids, "pids.current", meterPids)
	return m, nil
}

func (m *Meter) open(i int, n *node, v2 string, parse2 func([]byte, *Usage), v1 string, parse1 func([]byte, *Usage)) {
	if n == nil {
		return
	}
	file, parse := v2, parse2
	if n.h.Version == 1 {
		file, parse = v1, parse1
	}
	if fd, err := openAt(n.fd, file, unix.O_RDONLY|unix.O_NOFOLLOW); err == nil {
		m.files[i] = meterFile{fd, parse}
	}
}

func meterCPU(text []byte, u *Usage) {
	u.CPU = duration(pickValue(text, "usage_usec"), time.Microsecond)
}
func meterCPUv1(text []byte, u *Usage)      { u.CPU = duration(single(text), 1) }
func meterMemory(text []byte, u *Usage)     { u.Memory = single(text) }
func meterInactive(text []byte, u *Usage)   { u.workingSet(pickValue(text, "inactive_file")) }
func meterInactiveV1(text []byte, u *Usage) { u.workingSet(pickValue(text, "total_inactive_file")) }
func meterOOM(text []byte, u *Usage)        { u.OOMKills = pickValue(text, "oom_kill") }
func meterPids(text []byte, u *Usage)       { u.Pids = single(text) }

// Read reads the figures: some 15 µs of CPU time.
func (m *Meter) Read() (u Usage, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := newBuffer()
	defer b.free()
	open := false
	for i := range m.files {
		f := &m.files[i]
		if f.fd < 0 {
			continue
		}
		open = true
		text, err := b.preadAll(f.fd)
		if isGone(err) {
			return Usage{}, ErrClosed
		}
		if err != nil {
			return Usage{}, err
		}
		f.parse(text, &u)
	}
	if !open {
		return u, ErrClosed
	}
	u.CPU.n -= min(m.before, u.CPU.n)
	return u, nil
}

// Close closes the files. A second Close does nothing.
func (m *Meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.files {
		if m.files[i].fd >= 0 {
			unix.Close(m.files[i].fd)
			m.files[i].fd = -1
		}
	}
	return nil
}

// preadAll reads an open file from its start, with one call: the kernel makes the whole text of such a file at once,
// and those of a Meter are far smaller than the buffer.
func (b *buffer) preadAll(fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, b.b, 0)
		if err == nil {
			return b.b[:n], nil
		}
		if err != unix.EINTR {
			return nil, err
		}
	}
}
