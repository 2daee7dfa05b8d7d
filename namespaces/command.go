package namespaces

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"time"
)

// Cmd is a plain process to be started in chosen namespaces, in the manner of os/exec: the host's files, no limits, no
// seccomp filter, no dropped capabilities. It is a tool to build with and not a sandbox; a Container is one. A Cmd is made by
// [Command] and used once, by one goroutine.
//
// Its exported fields are set before Start.
type Cmd struct {
	// Path is the program, and Args its arguments with the name first. Path is resolved where the process ends up: in
	// a joined mount namespace that is another tree, and needs an absolute path.
	Path string
	Args []string

	// Env is the environment, as "KEY=value". Nil is that of the calling program.
	Env []string

	// Dir is the working directory. Empty: the caller's, or / in a joined mount namespace.
	Dir string

	// Stdin, Stdout and Stderr are as in os/exec: nil is /dev/null, an *os.File is used directly, and others are copied
	// by a goroutine until the end of file.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Set says which namespaces the process gets. The zero Set is new ones.
	Set Set

	// IDMaps are the maps of a new user namespace. The zero value is what [AutoIDMaps] chooses for [RootIsCaller].
	IDMaps IDMaps

	// UID and GID are the ids of the process in a new or joined user namespace, which must map them. The default is 0:
	// root there, with all capabilities there. Supplementary groups are dropped where the namespace allows it.
	UID, GID uint32

	// MountProc mounts a new proc file system on /proc, which shows the processes of the new pid namespace. It needs a
	// Set with new mount and pid namespaces.
	MountProc bool

	// Survive lets the process live on when the calling program ends. The default is that it is killed then.
	Survive bool

	// WaitDelay bounds how long Wait copies output after the process has ended, when others hold its pipes open.
	// Zero: until they close them.
	WaitDelay time.Duration

	// Err is what prevents Start, such as a program that was not found.
	Err error

	ctx context.Context
	run *running
}

// Command returns a Cmd that runs the named program in new namespaces of every kind. A name without a slash is looked
// up in $PATH, as by os/exec.
func Command(name string, args ...string) *Cmd {
	return CommandContext(context.Background(), name, args...)
}

// CommandContext is [Command] with a context: when it ends, the process is killed.
func CommandContext(ctx context.Context, name string, args ...string) *Cmd {
	c := &Cmd{Path: name, Args: append([]string{name}, args...), ctx: ctx}
	if !strings.Contains(name, "/") {
		path, err := exec.LookPath(name)
		c.Path = path
		if err != nil {
			c.Path, c.Err = name, &Error{Op: "find program", Object: name, Err: err}
		}
	}
	return c
}

// Validate judges the wish without a look at the machine and returns all faults joined; each matches [ErrInvalid].
func (c *Cmd) Validate() error {
	faults := []error{c.Set.Validate()}
	user := c.Set.Get(User)
	fault := func(bad bool, field, format string, args ...any) {
		if bad {
			faults = append(faults, invalid(field, format, args...))
		}
	}
	fault(c.Path == "", "Path", "it is empty")
	fault(len(c.Args) == 0, "Args", "the program's name is missing")
	for _, s := range append(append([]string{c.Path, c.Dir}, c.Args...), c.Env...) {
		fault(strings.ContainsRune(s, 0), "Cmd", "%q holds a NUL byte", s)
	}
	fault(c.Set.Get(Mount).IsJoin() && !strings.HasPrefix(c.Path, "/"), "Path", "%q is not absolute, which a joined mount namespace needs", c.Path)
	fault(c.MountProc && !(c.Set.Get(Mount).IsNew() && c.Set.Get(PID).IsNew()), "MountProc", "it needs new mount and pid namespaces")
	fault(user.IsHost() && (c.UID != 0 || c.GID != 0), "UID, GID", "they need a new or joined user namespace")
	fault(!user.IsNew() && !c.IDMaps.IsZero(), "IDMaps", "they need a new user namespace")
	if user.IsNew() && !c.IDMaps.IsZero() {
		faults = append(faults, c.IDMaps.Validate())
	}
	return errors.Join(faults...)
}

// checkIDs refuses ids that the maps do not hold.
func (c *Cmd) checkIDs(m IDMaps) error {
	_, uid := ToHost(m.UID, c.UID)
	_, gid := ToHost(m.GID, c.GID)
	if !uid || !gid {
		return invalid("UID, GID", "%d:%d is not mapped by %q", c.UID, c.GID, m)
	}
	return nil
}

// Run is [Cmd.Start] and [Cmd.Wait].
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, invalid("Stdout", "it is already set")
	}
	var b strings.Builder
	c.Stdout = &b
	err := c.Run()
	return []byte(b.String()), err
}

// CombinedOutput runs the process and returns what it wrote to its standard output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, invalid("Stdout, Stderr", "they are already set")
	}
	var b strings.Builder
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return []byte(b.String()), err
}
