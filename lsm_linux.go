package caisson

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// haveAppArmor reports whether the kernel runs with AppArmor.
func haveAppArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// haveSELinux reports whether the kernel runs with SELinux: it has the filesystem only then.
func haveSELinux() bool {
	b, err := os.ReadFile("/proc/filesystems")
	return err == nil && strings.Contains(string(b), "\tselinuxfs\n")
}

// lsm asks the machine for the security modules whose labels are wanted.
func (r *running) lsm(l *lsmSpec) error {
	var faults []error
	if p := l.apparmor; p != nil {
		switch found, known := appArmorProfile(*p); {
		case !haveAppArmor():
			faults = append(faults, withRemedy("a kernel booted with AppArmor (lsm=…,apparmor), or leave WithAppArmor out", "%w: WithAppArmor: this kernel runs without AppArmor", ErrUnsupported))
		case known && !found:
			faults = append(faults, withRemedy("load it: apparmor_parser -r FILE", "%w: WithAppArmor: no profile %q is loaded: %w", ErrInvalid, *p, fs.ErrNotExist))
		default:
			r.applied("AppArmor", "profile "+*p)
		}
	}
	if s := l.selinux; s != nil {
		if !haveSELinux() {
			faults = append(faults, withRemedy("a kernel booted with SELinux (lsm=…,selinux), or leave WithSELinux out", "%w: WithSELinux: this kernel runs without SELinux", ErrUnsupported))
		} else {
			r.applied("SELinux", *s)
		}
	}
	return errors.Join(faults...)
}

// labelMounts asks the same for the label of mounts.
func (r *running) labelMounts() error {
	s := r.spec.mountLabel
	if s == nil {
		return nil
	}
	if !haveSELinux() {
		return withRemedy("a kernel booted with SELinux (lsm=…,selinux), or leave WithMountLabel out", "%w: WithMountLabel: this kernel runs without SELinux", ErrUnsupported)
	}
	r.env.MountLabel = *s
	r.applied("SELinux, mounts", *s)
	return nil
}

// labelQueues has the directory of the container's own message queues labelled like what is mounted anew.
func (r *running) labelQueues(mounts []rootfs.Mount) error {
	for i := range mounts {
		m := &mounts[i]
		switch foreign := r.foreign(namespaces.IPC); {
		case m.Type != rootfs.TypeMqueue:
		case foreign && m.Label != "":
			return withRemedy("leave the ipc namespace a new one, or the label out", "%w: mount mqueue on %s: the message queues are not the container's own, and their label is not changed", ErrInvalid, m.Target)
		case !foreign && m.Label == "" && m.Set&rootfs.ReadOnly == 0:
			m.Label = r.env.MountLabel
		}
	}
	return nil
}

// appArmorProfile looks for a profile in the list of those that are loaded, which only root can read. A line is "name (mode)".
func appArmorProfile(name string) (found, known bool) {
	if name == "unconfined" {
		return true, true
	}
	f, err := os.Open("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		return false, false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.LastIndex(line, " ("); i > 0 && line[:i] == name {
			return true, true
		}
	}
	// A name with more in it ("a//b", ":ns:a", "a//&b") is left to the kernel.
	return false, lines.Err() == nil && !strings.ContainsAny(name, "/:&")
}

const (
	appArmorStep = "set AppArmor profile"
	selinuxStep  = "set SELinux label"
)

// labels writes what execve is to make of the process, in our own procfs: a file laid over /proc inside would swallow it
// (CVE-2019-16884).
func (c *compiler) labels(l *lsmSpec) {
	dir, at := program.Cwd(), "/proc/self/attr/" // the host's
	if c.m.plan != nil && !c.m.inside {
		dir, at = c.m.plan.Proc(), "self/attr/"
	}
	if p := l.apparmor; p != nil {
		c.Step(appArmorStep, *p)
		// The file of AppArmor's own (Linux 5.8), and the one that it may share with other modules.
		old, open := c.NewLabel(), c.NewLabel()
		fd := c.Words(0)
		f := c.Openat(dir, at+"apparmor/exec", unix.O_WRONLY, 0).IgnoreTo(old, unix.ENOENT)
		c.Copy(f, fd)
		zero := c.Words(0)
		c.JumpBelow(zero, program.Int(1), open)
		c.Mark(old)
		c.Copy(c.Openat(dir, at+"exec", unix.O_WRONLY, 0), fd)
		c.Mark(open)
		c.writeLabel(fd.Value(), "exec "+*p)
	}
	if s := l.selinux; s != nil {
		c.Step(selinuxStep, *s)
		for _, name := range []string{"keycreate", "exec"} {
			c.writeLabel(c.Openat(dir, at+name, unix.O_WRONLY, 0).Result(), *s)
		}
	}
}

func (c *compiler) writeLabel(fd program.Arg, text string) {
	c.Write(fd, text)
	c.Close(fd)
}
