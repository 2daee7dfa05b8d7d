package caisson

import (
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// The program of a container of a pool has two parts. The first is performed when the container is made ready: everything
// that does not depend on the command. The second is made and sent at the release: files, streams, limits of the process,
// credentials, filter, and the command.

// awaitRest ends the first part. What it sets is the same for all containers of a pool, and needs the procfs that was just
// mounted, or privileges.
func (c *compiler) awaitRest() {
	p := &c.s.process
	when := afterFork
	if c.m.userns != usernsRanges {
		when = noFork
	}
	emitScheduling(c.Builder, &p.attrs, when)
	c.labels(&p.lsm)
	emitKeyring(c.Builder, c.m.keyring)
	emitPersonality(c.Builder, &p.attrs)
	c.Step("let go of", "the standard streams of the host program")
	for i := range streamNames { // their places stay taken, so that nothing else gets them
		c.Dup3(c.Input(stage.HostInput), i, unix.O_CLOEXEC)
	}
	c.Step("wait in", `state "created"`)
	stage.EmitNext(c.Builder, syncCreated)
}

// rest is the second part.
func (c *compiler) rest() {
	p := &c.s.process
	c.receive(3 + len(p.extraFiles))
	c.m.plan.WriteFiles(c.Builder)
	c.stdio(p)
	ruleset := c.landlockRules(p) // as long as the current directory is the root
	c.workingDirectory(p.dir)
	c.limitProcess()
	c.lookCommand(p)
	c.confineEarly(p, ruleset)
	c.credentials(p)
	c.command(p, ruleset)
}

// receive takes the files that come with the second part and moves them above all places.
func (c *compiler) receive(places int) {
	if len(c.m.sent) == 0 {
		return
	}
	c.Step("receive", "files")
	c.received = map[string]program.OpRef{}
	for i, fd := range stage.EmitReceive(c.Builder, c.m.sent...) {
		name := c.m.sent[i]
		high := c.Fcntl(fd, unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", places)
		c.received[name] = high
		c.Bind(name, high.Result())
	}
	for _, name := range c.m.packed {
		c.Bind(name, c.received[packedFiles].Result())
	}
}
