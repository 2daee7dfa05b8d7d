//go:build linux

package stage

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// exeInput is the name of the input of the first hop that stands for the stage's executable.
const exeInput = "stage"

// exeStep is the object of the step in which the executable's refusal shows.
const exeStep = "the stage"

// hopProgram is what a new process performs in the host's memory: it keeps the descriptors that the stage needs, and
// executes the stage, by its descriptor or, where that call is hidden by a filter, by the descriptor's name (exe).
func hopProgram(c Config, exe string) (*program.Program, error) {
	b := program.NewBuilder(false)
	emitSelfMaps(b, c)
	b.Step("keep descriptors for", "its next program")
	fds, report := c.numbers()
	for i, name := range c.Program.Inputs() {
		if name != HostInput {
			b.Dup3(b.Input(name), fds[i], 0)
		}
	}
	if c.socket > 0 {
		b.Fcntl(b.Input(HostInput), unix.F_SETFD, "F_SETFD", 0)
	} else {
		b.Dup3(b.Input(HostInput), report, 0)
	}
	emitPlaces(b, c)
	b.Step("execute", exeStep)
	argv := []string{"caisson-stage"}
	b.Execveat(b.Input(exeInput), argv, nil).Ignore(unix.ENOSYS, unix.EPERM)
	b.Execve("/proc/self/fd/"+exe, argv, nil)
	return b.Build()
}

// emitPlaces emits that the places of descriptors are taken.
func emitPlaces(b *program.Builder, c Config) {
	for n := range c.places() {
		b.Dup3(b.Input(HostInput), n, 0)
	}
}

// emitSelfMaps emits that the process writes the id maps of its new user namespace.
func emitSelfMaps(b *program.Builder, c Config) {
	if c.UIDMap == "" {
		return
	}
	b.Step("write id maps of", "the new user namespace")
	b.WriteFile(program.Cwd(), "/proc/self/setgroups", "deny")
	b.WriteFile(program.Cwd(), "/proc/self/uid_map", c.UIDMap)
	b.WriteFile(program.Cwd(), "/proc/self/gid_map", c.GIDMap)
}

// Explain prints what Start would have the new process do, from its clone to the end of its program. Of the files only
// the names matter.
func Explain(w io.Writer, c Config) error {
	if c.Program.GoesOn() {
		c.socket = outOfTheWayAbove
	}
	hop, err := hopProgram(c, "<stage>")
	flags := cloneFlags(c.Namespaces, c.Cgroup)
	if copied.Load() { // of addresses and descriptors only the number is known
		hop, err = shedProgram(c, &inputs{host: c.above()}, nil)
		flags &^= unix.CLONE_VM | unix.CLONE_VFORK
	}
	if err != nil {
		return err
	}
	call := fmt.Sprintf("clone3({flags=%s, exit_signal=SIGCHLD}, 88)", program.CloneFlagNames(flags))
	if !HasClone3() {
		flags &^= unix.CLONE_CLEAR_SIGHAND | unix.CLONE_INTO_CGROUP
		call = fmt.Sprintf("clone(child_stack=NULL, flags=%s|SIGCHLD)", program.CloneFlagNames(flags))
	}
	if _, err := fmt.Fprintf(w, "# make the first process\n%s\n", call); err != nil {
		return err
	}
	if err := hop.Explain(w); err != nil {
		return err
	}
	return c.Program.Explain(w)
}
