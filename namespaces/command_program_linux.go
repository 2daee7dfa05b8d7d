package namespaces

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// Sync points of a Cmd's program.
const (
	tagMaps  = 1 // the user namespace is made and waits for its maps
	tagChild = 2 // the process that will be the command was made; the value is its pid
)

// stdioInputs are the names of the files that become descriptors 0, 1 and 2.
var stdioInputs = [3]string{"stdin", "stdout", "stderr"}

func joinInput(k Kind) string { return k.String() + " namespace" }

// program is what the stage does before it executes the command.
//
// The order is not free: existing namespaces are joined with the privileges the process has at first; a new user namespace
// gives the privileges for the other new ones; the pid and time kinds hold for children, so that a child is made
// once they are in place, by CLONE_PARENT, which makes it a child of the calling program; ids are changed last, because
// that may drop capabilities.
func (c *Cmd) program(joined []Joined) (*program.Program, error) {
	b := program.NewBuilder(false)
	fresh := c.Set.New()
	var self program.OpRef
	if fresh.Has(Time) {
		// Opened while /proc is certainly the host's.
		b.Step("open", "/proc/self")
		self = b.Openat(program.Cwd(), "/proc/self", unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	for _, j := range joined {
		b.Step("join "+j.Kind.String()+" namespace", j.File.Name())
		b.Setns(b.Input(joinInput(j.Kind)), uint64(j.Kind.CloneFlag()))
	}
	if fresh.Has(User) {
		unshare(b, User)
	}
	if fresh.Has(Time) {
		unshare(b, Time)
		if (c.Set.TimeOffsets != TimeOffsets{}) {
			b.Step("set", "clock offsets")
			b.WriteFile(self.Result(), "timens_offsets", c.Set.TimeOffsets.String())
		}
	}
	if fresh.Has(User) {
		b.Step("wait for", "id maps")
		stage.EmitSync(b, tagMaps)
	}
	c.makeOthers(b, fresh)
	if needsChild(&c.Set) {
		emitChild(b)
	}
	c.prepare(b)
	return b.Build()
}

func unshare(b *program.Builder, k Kind) {
	b.Step("make", k.String()+" namespace")
	b.Unshare(uint64(k.CloneFlag()))
}

func (c *Cmd) makeOthers(b *program.Builder, fresh Kinds) {
	for _, k := range fresh.Without(User).Without(Time).List() {
		unshare(b, k)
	}
	if c.Set.Hostname != "" {
		b.Step("set host name", c.Set.Hostname)
		b.Sethostname(c.Set.Hostname)
	}
	if c.Set.Domainname != "" {
		b.Step("set domain name", c.Set.Domainname)
		b.Setdomainname(c.Set.Domainname)
	}
	if fresh.Has(Mount) {
		b.Step("make mounts private on", "/")
		b.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
}

// needsChild reports whether the set has a namespace that only children of the process enter.
func needsChild(s *Set) bool {
	return !s.Get(PID).IsHost() || s.Get(Time).IsNew()
}

// emitChild makes the child, tells the host its pid and ends; the child waits to be released and goes on.
func emitChild(b *program.Builder) {
	b.Step("make process in", "the new namespaces")
	child := b.NewLabel()
	msg := b.Words(tagChild, 0)
	clone := b.Call(unix.SYS_CLONE, "clone", program.Named(unix.CLONE_PARENT, "CLONE_PARENT"),
		program.Null(), program.Null(), program.Null(), program.Null())
	b.JumpZero(clone, child)
	b.Copy(clone, msg+1)
	b.Call(unix.SYS_WRITE, "write", b.Input(stage.HostInput), msg.Addr(), program.Int(stage.MessageSize))
	b.ExitGroup(0)
	b.Mark(child)
	b.Step("wait for", "the calling program")
	stage.EmitWait(b)
}

// prepare sets up the process itself and executes the command.
func (c *Cmd) prepare(b *program.Builder) {
	if c.MountProc {
		b.Step("mount proc on", "/proc")
		b.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if !c.Set.Get(User).IsHost() {
		b.Step("become", fmt.Sprintf("user %d, group %d", c.UID, c.GID))
		b.Setgroups(nil).Ignore(unix.EPERM) // denied in a namespace with a single-id map
		b.Setresgid(c.GID)
		b.Setresuid(c.UID)
	}
	if c.Dir != "" {
		b.Step("change to", c.Dir)
		b.Chdir(c.Dir)
	}
	b.Step("set", "standard input and outputs")
	var high [3]program.OpRef
	for i, name := range stdioInputs {
		// Out of the way first: one of them may be another's number.
		high[i] = b.Fcntl(b.Input(name), unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", 10)
	}
	for i := range high {
		b.Dup3(high[i].Result(), i, 0)
	}
	b.CloseRange(3, unix.CLOSE_RANGE_CLOEXEC)
	env := c.Env
	if env == nil {
		env = os.Environ()
	}
	b.Step("execute", c.Path)
	b.Execve(c.Path, c.Args, env)
}

// Explain prints what the process will do before it executes the command, system call by system call in the form that
// strace uses, without doing it. Namespaces to be joined are opened to find out their order.
func (c *Cmd) Explain(w io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	joined, err := c.Set.OpenJoined()
	if err != nil {
		return err
	}
	defer closeJoined(joined)
	p, err := c.program(joined)
	if err != nil {
		return err
	}
	return p.Explain(w)
}
