package namespaces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// running is a started Cmd.
type running struct {
	process *os.Process
	pidfd   *stage.Pidfd
	release func() // from the keeper
	stop    func() bool
	stdio   stdio
	waited  bool
}

// Start starts the process and returns when it executes its program, or with the reason why it does not. Nothing is
// left then. A step that the kernel refused is told by name, with what would help if that is known; the errno matches.
func (c *Cmd) Start() error {
	if c.run != nil {
		return invalid("Cmd", "it was already started")
	}
	if err := errors.Join(c.Err, c.Validate()); err != nil {
		return err
	}
	if c.ctx == nil {
		c.ctx = context.Background()
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	maps, err := c.maps()
	if err != nil {
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
	r := &running{}
	if err := r.stdio.open(c.Stdin, c.Stdout, c.Stderr); err != nil {
		return err
	}
	defer r.stdio.closeChild()
	if err := r.start(c, p, joined, maps); err != nil {
		r.stdio.closeParent()
		return explainStart(err)
	}
	r.stdio.copy()
	r.stop = context.AfterFunc(c.ctx, func() { _ = r.pidfd.Signal(unix.SIGKILL) })
	c.run = r
	return nil
}

// maps returns the maps to write, none if no user namespace is made.
func (c *Cmd) maps() (IDMaps, error) {
	if !c.Set.Get(User).IsNew() {
		return IDMaps{}, nil
	}
	m := c.IDMaps
	if m.IsZero() {
		auto, err := AutoIDMaps(RootIsCaller)
		if err != nil {
			return m, err
		}
		m = auto.IDMaps
	}
	return m, c.checkIDs(m)
}

func (r *running) start(c *Cmd, p *program.Program, joined []Joined, maps IDMaps) error {
	files := map[string]int{}
	for i, name := range stdioInputs {
		files[name] = int(r.stdio.child[i].Fd())
	}
	for _, j := range joined {
		files[joinInput(j.Kind)] = int(j.File.Fd())
	}
	child, err := stage.Start(stage.Config{Program: p, Files: files, Cgroup: -1})
	if err != nil {
		return err
	}
	defer child.Conn.Close()
	defer hangUpAfter(c.ctx, child.Conn)()
	pid, pidfd, err := r.converse(c, child, maps)
	if err == nil {
		err = r.adopt(pid, pidfd)
	}
	if err == nil {
		return nil
	}
	if ctxErr := c.ctx.Err(); ctxErr != nil {
		err = ctxErr
	}
	return err
}

// hangUpAfter ends our half of the conversation when ctx ends, at which the stage ends itself. What the stage says is still
// heard: it may just have made a process that nobody else knows of. The returned function ends the
// watch, and returns when the descriptor is certainly not used any more.
func hangUpAfter(ctx context.Context, conn *stage.Conn) func() {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = unix.Shutdown(conn.Fd(), unix.SHUT_WR)
		close(done)
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// converse leads the stage through its sync points to the command. It returns the process that is the command now; on an
// error none is left, or one that was killed and takes long to end, which is collected then.
func (r *running) converse(c *Cmd, child *stage.Child, maps IDMaps) (pid, pidfd int, err error) {
	pid, pidfd = child.Pid, child.Pidfd
	err = r.keep(c, pidfd)
	for err == nil {
		var m stage.Message
		if m, err = child.Conn.Recv(); err != nil {
			break
		}
		switch m.Tag {
		case tagMaps:
			err = writeMapsOf(c.ctx, pid, pidfd, maps)
		case tagChild:
			var next int
			// Nobody has collected it yet, so the number is still that process's.
			if next, err = unix.PidfdOpen(int(m.Value), 0); err != nil {
				killByNumber(int(m.Value))
				err = &Error{Op: "open pidfd of", Object: fmt.Sprintf("process %d", m.Value), Err: goneErr(err)}
				break
			}
			stage.Reap(pidfd)
			r.release()
			unix.Close(pidfd)
			pid, pidfd = int(m.Value), next
			err = r.keep(c, pidfd)
		}
		if err == nil {
			err = child.Conn.Release()
		}
	}
	// End of file: the command runs, or the stage was killed, which Wait will tell.
	if err == io.EOF && c.ctx.Err() == nil {
		return pid, pidfd, nil
	}
	if pid == child.Pid && needsChild(&c.Set) {
		killUnknownChild(child.Conn)
	}
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	stage.Reap(pidfd)
	r.release()
	unix.Close(pidfd)
	return -1, -1, err
}

// killUnknownChild hangs up and hears the stage out: killed at once, it could leave a child of ours whose pid it did not
// come to tell.
func killUnknownChild(conn *stage.Conn) {
	_ = unix.Shutdown(conn.Fd(), unix.SHUT_WR)
	for {
		m, err := conn.Recv()
		if err != nil {
			return
		}
		if m.Tag == tagChild {
			killByNumber(int(m.Value))
			return
		}
	}
}

// keep makes sure that the process ends with this program, unless it is to survive.
func (r *running) keep(c *Cmd, pidfd int) (err error) {
	r.release = func() {}
	if c.Survive {
		return nil
	}
	release, err := stage.Keep(pidfd)
	if err == nil {
		r.release = release
	}
	return err
}

func writeMapsOf(ctx context.Context, pid, pidfd int, maps IDMaps) error {
	f, err := dupPIDFD(pidfd)
	if err != nil {
		return err
	}
	defer f.Close()
	return WriteMaps(ctx, pid, f, maps)
}

func dupPIDFD(pidfd int) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// adopt takes over the process; on an error it is killed.
func (r *running) adopt(pid, pidfd int) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		unix.Close(pidfd)
		killByNumber(pid)
		r.release()
		return err
	}
	r.process, r.pidfd = process, stage.NewPidfd(pidfd)
	return nil
}

// killByNumber ends and collects a child of ours that nobody has collected yet.
func killByNumber(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}

// explainStart adds what would help to a refused step.
func explainStart(err error) error {
	var s *program.StepError
	if !errors.As(err, &s) {
		return err
	}
	e := &Error{Op: "start process", Err: err}
	for _, k := range All() {
		if s.Syscall != "execve" && (s.Object == k.String()+" namespace" || s.Step == "join "+k.String()+" namespace") {
			e.Remedy = remedy(k, err)
		}
	}
	return e
}

// Pid returns the process id as the caller's pid namespace sees it, or 0 if the process was not started.
func (c *Cmd) Pid() int {
	if c.run == nil {
		return 0
	}
	return c.run.process.Pid
}

// Signal sends a signal to the process. It returns os.ErrProcessDone if it has ended. The first process of a new pid namespace
// ignores signals it has no handler for, except SIGKILL.
func (c *Cmd) Signal(sig os.Signal) error {
	s, ok := sig.(unix.Signal)
	if c.run == nil || !ok {
		return invalid("Signal", "the process was not started, or the signal is unknown")
	}
	return c.run.pidfd.Signal(s)
}

// Namespace opens the namespace of kind k that the process is in, so that others can join it or it can be kept with
// [Pin]. The caller closes it.
func (c *Cmd) Namespace(k Kind) (*os.File, error) {
	if c.run == nil || c.run.waited {
		return nil, &Error{Op: "open " + k.String() + " namespace of", Object: c.Path, Err: ErrProcessGone}
	}
	return Of(k, c.run.process.Pid)
}

// Wait waits for the process to end and for its output to be copied, and frees what Start took. A program that fails is
// an *exec.ExitError. If the context ended first, that is the error. If another wait of the calling program, or an ignored
// SIGCHLD, took the exit status, the error matches [ErrStatusLost]. Waiting costs no thread.
func (c *Cmd) Wait() error {
	r := c.run
	if r == nil || r.waited {
		return invalid("Wait", "the process was not started, or was already waited for")
	}
	r.waited = true
	err := r.pidfd.AwaitExit()
	state, waitErr := r.process.Wait()
	canceled := !r.stop()
	r.release()
	r.pidfd.Close()
	copyErr := r.stdio.wait(c.WaitDelay)
	switch {
	case err != nil:
		return &Error{Op: "wait for", Object: c.Path, Err: err}
	case errors.Is(waitErr, unix.ECHILD), errors.Is(waitErr, os.ErrProcessDone):
		return &Error{Op: "wait for", Object: c.Path, Err: fmt.Errorf("%w: %w", ErrStatusLost, waitErr)}
	case waitErr != nil:
		return &Error{Op: "wait for", Object: c.Path, Err: waitErr}
	case !state.Success() && canceled:
		return c.ctx.Err()
	case !state.Success():
		return &exec.ExitError{ProcessState: state}
	}
	return copyErr
}
