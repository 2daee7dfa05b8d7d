package cgroups

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

const remedyBPF = "device rules on cgroup v2 are an eBPF program, which needs root of the machine itself " +
	"(CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the first user namespace) and a kernel with CONFIG_CGROUP_BPF"

// probeDevices says why no device program can be attached in the v2 hierarchy at dir; nil when one can. It loads none:
// asking what is attached needs the kernel's support and one of the two privileges, the other is looked up.
func probeDevices(dir string) error {
	fd, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	fds, err := bpfAttached(fd)
	closeAll(fds)
	if err != nil {
		return err
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	const high = 32 // the first capability of the second word
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 && data[1].Effective&(1<<(unix.CAP_BPF-high)) == 0 {
		return unix.EPERM
	}
	return nil
}

// A programCache keeps loaded programs: loading one costs ten times what attaching it does, and most groups of a program
// have the same rules.
type programCache struct {
	mu   sync.Mutex
	list []cachedProgram // the latest used last
}

type cachedProgram struct {
	code string
	fd   int
}

const maxPrograms = 8

// use calls f with the program, which stays open meanwhile.
func (c *programCache) use(code string, f func(fd int) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range c.list {
		if p.code == code {
			c.list = append(append(c.list[:i], c.list[i+1:]...), p)
			return f(p.fd)
		}
	}
	fd, err := bpfLoad([]byte(code))
	if err != nil {
		return cannotLoad(err)
	}
	if len(c.list) == maxPrograms {
		unix.Close(c.list[0].fd)
		c.list = append(c.list[:0], c.list[1:]...)
	}
	c.list = append(c.list, cachedProgram{code, fd})
	return f(fd)
}

func (c *programCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.list {
		unix.Close(p.fd)
	}
	c.list = nil
}

func cannotLoad(err error) error {
	return &UnsupportedError{Controller: Devices, Knob: deviceProgramFile, Reason: "the kernel does not take the program", Remedy: remedyBPF, Err: err}
}

// setDevices has the group's processes held to a program from now on, in the place of the one before: at no moment is
// there none, and none is left behind.
func (n *node) setDevices(m *Manager, code string) error {
	err := m.programs.use(code, func(prog int) error {
		old, err := bpfAttached(n.fd)
		if err != nil {
			return n.fail("list the device programs of", "", err)
		}
		defer closeAll(old)
		return n.replaceDevices(prog, old)
	})
	if u := (*UnsupportedError)(nil); errors.As(err, &u) {
		u.Mode = m.layout.Mode
	}
	return err
}

func (n *node) replaceDevices(prog int, old []int) error {
	replace := -1
	if len(old) > 0 {
		replace = old[0]
	}
	err := bpfAttach(n.fd, prog, replace)
	switch {
	case replace < 0 && err == nil:
		return nil
	case replace >= 0 && errors.Is(err, unix.EINVAL):
		// Before Linux 5.6 nothing can be replaced: both together for a moment, which is stricter than either. Here it can
		// also mean that the new program is the old one.
		if err = bpfAttach(n.fd, prog, -1); errors.Is(err, unix.EINVAL) {
			return nil
		}
	case err == nil:
		old = old[1:]
	}
	if errors.Is(err, unix.EPERM) {
		return &UnsupportedError{Controller: Devices, Knob: deviceProgramFile, Err: err, Remedy: remedyBPF,
			Reason: "no device program can be attached to " + n.path + " (a group above may have one that forbids others)"}
	}
	if err != nil {
		return n.fail("attach a device program to", "", err)
	}
	for _, fd := range old {
		if err := bpfDetach(n.fd, fd); err != nil && !errors.Is(err, unix.ENOENT) {
			return n.fail("detach a device program from", "", err)
		}
	}
	return nil
}

// devicesV1 is the plan for a living v1 group, from what it has.
func (n *node) devicesV1(rules []DeviceRule, mode Mode) ([]Setting, error) {
	p, err := policyOf(rules)
	if err != nil {
		return nil, unsupportedV1Rules(mode)
	}
	text, err := readText(n.fd, "devices.list")
	if err != nil {
		return nil, n.fail("read", "devices.list", err)
	}
	return p.changeFrom(text), nil
}
