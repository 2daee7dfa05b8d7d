package caisson

import (
	"path/filepath"
)

// engineSpec are wishes of programs that start containers for others and do not stay.
type engineSpec struct {
	unkept  bool
	console string // path of a socket
}

// WithoutKeeper leaves the process to whoever collects the children of this program: as long as the program lives that is
// itself, afterwards the nearest subreaper among its ancestors (prctl(2), PR_SET_CHILD_SUBREAPER), or init. That is
// how engines want it that start containers by a command line, such as containerd's shim and conmon: they collect the
// process, and so learn how it ended.
//
// Of a container it needs WithDetached(true) without a monitor; nobody records then how the command ended: a [Result] has it
// only where this program still lives, or another waits when the process is collected (Linux 6.15). This program does not collect the
// process either, except by [Container.Remove]. A terminal without WithConsoleSocket is hung up when this program ends.
// [Container.Create] fails where there is no such command, unless a startContainer hook may make it. Given to [Container.Exec] the
// process does not end with this program; nor does its start, from when the process is made, if the context of Exec cannot end.
// Default: a keeper collects a detached container's process, and ends what is not detached.
func WithoutKeeper() ProcessOption {
	return processOption(func(p *processSpec) { p.engine.unkept = true })
}

// WithConsoleSocket sends the master side of the terminal ([WithTerminal]) as SCM_RIGHTS (unix(7)) to the program that listens on a
// Unix stream socket, instead of copying from and to it here. So a container that outlives this program can have a
// terminal. The path must be absolute. An error of the socket is one of the start.
func WithConsoleSocket(path string) ProcessOption {
	return processOption(func(p *processSpec) { p.engine.console = path })
}

// validateEngine judges the wishes of a container.
func (s *spec) validateEngine() error {
	p := &s.process
	if p.engine.unkept && !s.detach.alone() {
		return invalid("WithoutKeeper", "of a container it needs WithDetached(true), without a monitor")
	}
	if p.engine.unkept && s.init {
		return invalid("WithoutKeeper", "how the command ended would be known to nobody: WithInit needs the keeper")
	}
	return nil
}

// validate judges those of any process.
func (e *engineSpec) validate(p *processSpec) error {
	switch {
	case e.console == "":
		return nil
	case !p.terminal:
		return invalid("WithConsoleSocket", "there is no terminal without WithTerminal")
	case p.stdin != nil || p.stdout != nil || p.stderr != nil:
		return invalid("WithConsoleSocket", "streams are those of the terminal, which is given away")
	case !filepath.IsAbs(e.console):
		return invalid("WithConsoleSocket", "%q is not an absolute path", e.console)
	}
	return nil
}
