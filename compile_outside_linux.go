package caisson

import (
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// inputUser is the user namespace that is joined.
const inputUser = "user namespace"

// outside performs the start of a container in a pid namespace in which others are already, without a user namespace of its
// own: those others can be root of the same user namespace. So all is set up, with privileges, by a process that they cannot
// see, and what appears among them has its final credentials; see inside, which does the same for Exec.
func (c *compiler) outside() {
	p, m := &c.s.process, c.m
	c.Step("lead", "a process group")
	c.Call(unix.SYS_SETPGID, "setpgid", program.Int(0), program.Int(0))
	c.joinCgroups()
	emitScheduling(c.Builder, &p.attrs, beforeFork)
	c.labels(&p.lsm) // a child keeps them; /proc will be that of a pid namespace in which this process is not
	c.openSources()
	c.enterNamespaces()
	c.network()
	c.assembleRoot()
	c.sysctls()
	m.plan.Protect(c.Builder)
	c.identity()
	c.inherited(p)
	var ruleset program.OpRef
	if p.allowNewPrivs {
		ruleset = c.landlockRules(p)
	}
	c.confineEarly(p, ruleset)
	c.closeInputs()
	c.appear(p, ruleset)
}

// closeInputs closes the files that the set-up needed and the process that appears does not. Those of the cgroups are closed
// where that process is made.
func (c *compiler) closeInputs() {
	c.Step("close", "the files of the set-up")
	for _, j := range c.m.joined {
		c.Close(c.Input(j.name))
	}
	if c.m.template {
		c.Close(c.Input("template"))
	}
}

// ownMounts opens the process's mount namespace: by its name, where /proc is that of its own pid namespace.
func (c *compiler) ownMounts() program.OpRef {
	if !c.m.outside() {
		return c.Openat(c.m.plan.Proc(), "self/ns/mnt", unix.O_RDONLY, 0)
	}
	self := c.Call(unix.SYS_GETPID, "getpid")
	fd := c.Call(unix.SYS_PIDFD_OPEN, "pidfd_open", self.Result(), program.Int(0))
	return c.Ioctl(fd.Result(), pidfdGetMountNamespace, "PIDFD_GET_MNT_NAMESPACE", program.Int(0))
}

// pidfdGetMountNamespace is PIDFD_GET_MNT_NAMESPACE, _IO(0xFF, 3), Linux 6.11.
const pidfdGetMountNamespace = 0xff03
