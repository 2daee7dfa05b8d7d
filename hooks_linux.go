package caisson

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

const (
	hookOutput = 4 << 10         // bytes kept of what a program writes
	hookLinger = time.Second     // for output that others than the hook itself hold open
	stoppedMax = 1 * time.Minute // for each hook at HookStopped
)

// hooksCreate runs the hooks at the stop before the root directory is switched, except those that the stage runs.
func (r *running) hooksCreate(ctx context.Context, stop bool) error {
	for _, p := range []HookPoint{HookPrestart, HookCreateRuntime} {
		if err := r.callHooks(ctx, p); err != nil {
			return err
		}
	}
	if err := r.child.Conn.Release(); err != nil || len(r.spec.hooks.at(HookCreateContainer)) > 0 {
		return err
	}
	return r.releaseLast(stop)
}

// begins keeps the hooks of the end waiting until the returned function is called.
func (r *running) begins() (over func()) {
	r.beginning.Lock()
	return sync.OnceFunc(r.beginning.Unlock)
}

// hooksStarted runs the hooks after the command has been executed, which is over then. If one fails the container is ended.
func (r *running) hooksStarted(ctx context.Context, p *Process, over func()) error {
	err := r.callHooks(ctx, HookStarted)
	over()
	if err == nil {
		return nil
	}
	if cerr := endOf(ctx); cerr != nil {
		err = cerr
	}
	_ = p.kill(ReasonStopped)
	p.attend()
	<-p.done
	return err
}

// hooksStopped runs the hooks of the end, once. What fails is logged.
func (r *running) hooksStopped() {
	if !r.hooked {
		return
	}
	r.hooked = false
	h := &r.spec.hooks
	if !h.any(HookStopped) {
		return
	}
	each := func(f func(ctx context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), stoppedMax)
		defer cancel()
		if err := f(ctx); err != nil {
			r.warn("hook", err)
		}
	}
	for _, f := range h.funcs {
		if f.point == HookStopped {
			each(func(ctx context.Context) error { return r.callHook(ctx, f) })
		}
	}
	for i := range h.programs.Poststop {
		each(func(ctx context.Context) error { return r.runHook(ctx, HookStopped, &h.programs.Poststop[i]) })
	}
}

// callHooks calls the functions and runs the programs of a moment until one fails.
func (r *running) callHooks(ctx context.Context, p HookPoint) error {
	r.hooked = true
	h := &r.spec.hooks
	for _, f := range h.funcs {
		if f.point != p {
			continue
		}
		if err := r.callHook(ctx, f); err != nil {
			return err
		}
	}
	list := h.at(p)
	for i := range list {
		if err := r.runHook(ctx, p, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *running) callHook(ctx context.Context, f hookFunc) error {
	st := r.stateAt(f.point)
	if _, err := call(ctx, func(ctx context.Context) error { return f.f(ctx, st) }); err != nil {
		return &HookError{Point: f.point, Err: err}
	}
	return nil
}

// stateAt is what the hooks of a moment are told.
func (r *running) stateAt(p HookPoint) *HookState {
	s := &HookState{Point: p, ID: r.spec.id, Bundle: r.spec.hooks.bundle, Labels: maps.Clone(r.spec.detach.labels)}
	if p != HookStopped {
		s.Pid = r.child.Pid
	} else if r.proc != nil && r.ran.Load() {
		s.Result = r.proc.result
	}
	return s
}

// runHook runs a program in the namespaces of the host program.
func (r *running) runHook(ctx context.Context, p HookPoint, h *specs.Hook) error {
	state, err := codec.Marshal(r.stateAt(p).Spec())
	if err != nil {
		return &HookError{Point: p, Path: h.Path, Err: err}
	}
	ctx, cancel := hookContext(ctx, h)
	defer cancel()
	out := &tailWriter{limit: hookOutput}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	pidfd := -1
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Dir = args, slices.Concat([]string{}, h.Env), r.spec.hooks.bundle
	if cmd.Env == nil {
		cmd.Env = []string{} // nil is that of the host program
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	cmd.Cancel = func() error { return killHook(pidfd, cmd.Process.Pid) }
	cmd.WaitDelay = hookLinger
	if err = cmd.Start(); err == nil {
		err = waitHook(cmd, pidfd)
	}
	return hookError(ctx, p, h, err, out.Bytes())
}

// waitHook waits for the end of a program, which ends with the host program.
func waitHook(cmd *exec.Cmd, pidfd int) error {
	if pidfd >= 0 {
		defer unix.Close(pidfd)
		if release, err := stage.Keep(pidfd); err == nil {
			defer release()
		}
	}
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) { // it has succeeded, and left others behind that hold its output open
		err = nil
	}
	return err
}

// hookContext ends after a program's timeout.
func hookContext(ctx context.Context, h *specs.Hook) (context.Context, context.CancelFunc) {
	if h.Timeout == nil {
		return context.WithCancel(ctx)
	}
	d := time.Duration(min(*h.Timeout, 1<<31)) * time.Second
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%w: it took longer than its timeout of %v", os.ErrDeadlineExceeded, d))
}

// killHook kills a program's process group, as long as the program has not been collected: until then the number is its own.
func killHook(pidfd, pid int) error {
	if pidfd >= 0 && unix.PidfdSendSignal(pidfd, 0, nil, 0) != nil || pid <= 1 {
		return os.ErrProcessDone
	}
	err := unix.Kill(-pid, unix.SIGKILL)
	if pidfd >= 0 {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
	return err
}

// hookError is the error of a program; nil if err is.
func hookError(ctx context.Context, p HookPoint, h *specs.Hook, err error, output []byte) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &HookError{Point: p, Path: h.Path, Err: err, Output: output}
}

// stageHook is a program that the stage runs.
type stageHook struct {
	r             *running
	stdin, output *os.File
	out           tailWriter
	copied        chan struct{}
	pidfd, pid    int
}

// runInStage has the stage run a program, in the namespaces and with the rights that the stage has by then.
func (r *running) runInStage(ctx context.Context, number uint64, stop bool) error {
	p, i := HookPoint(number>>32), int(uint32(number))
	r.hooked = true
	list := r.spec.hooks.at(p)
	if p != HookCreateContainer && p != HookStartContainer || i >= len(list) {
		return fmt.Errorf("the stage asks for a hook that is not there: %#x", number)
	}
	h := &list[i]
	hctx, cancel := hookContext(ctx, h)
	defer cancel()
	s := &stageHook{r: r, pidfd: -1, out: tailWriter{limit: hookOutput}}
	err := s.run(hctx, p)
	if err = hookError(hctx, p, h, err, s.out.Bytes()); err != nil {
		return err
	}
	if err := r.child.Conn.Release(); err != nil || p != HookCreateContainer || i < len(list)-1 {
		return err
	}
	return r.releaseLast(stop)
}

func (s *stageHook) run(ctx context.Context, p HookPoint) (err error) {
	st := s.r.stateAt(p)
	if st.Pid, err = innerPid(st.Pid); err != nil {
		return err
	}
	state, err := codec.Marshal(st.Spec())
	if err != nil {
		return err
	}
	theirs, err := s.open()
	if err != nil {
		return err
	}
	err = s.r.child.Conn.Send(theirs[:]...)
	for _, fd := range theirs {
		unix.Close(fd)
	}
	go func() {
		_, _ = s.stdin.Write(state) // it need not read all of it
		s.stdin.Close()
	}()
	go func() {
		defer close(s.copied)
		_, _ = io.Copy(&s.out, s.output)
	}()
	defer func() { s.close(err) }()
	if err != nil {
		return err
	}
	return s.follow(ctx)
}

// open makes the pipes and returns the ends for the program.
func (s *stageHook) open() (theirs [2]int, err error) {
	var in, out [2]int
	if err := unix.Pipe2(in[:], unix.O_CLOEXEC); err != nil {
		return theirs, os.NewSyscallError("pipe2", err)
	}
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		unix.Close(in[0])
		unix.Close(in[1])
		return theirs, os.NewSyscallError("pipe2", err)
	}
	_ = unix.SetNonblock(in[1], true) // so that Close ends a Write or a Read that waits
	_ = unix.SetNonblock(out[0], true)
	s.stdin, s.output = os.NewFile(uintptr(in[1]), "hook's stdin"), os.NewFile(uintptr(out[0]), "hook's output")
	s.copied = make(chan struct{})
	return [2]int{in[0], out[1]}, nil
}

// follow talks with the stage until the program has ended.
func (s *stageHook) follow(ctx context.Context) error {
	conn := s.r.child.Conn
	code := uint64(0)
	var stopWatch func() bool
	ended := make(chan struct{})
	defer func() {
		if stopWatch != nil && !stopWatch() {
			<-ended
		}
	}()
	for {
		msg, err := conn.Recv()
		if err == io.EOF {
			return s.died()
		}
		if err != nil {
			return s.r.explainFailure(err)
		}
		switch msg.Tag {
		case syncHookChild:
			s.pidfd = msg.FD
			if s.pid, err = pidOf(msg.FD); err != nil {
				return err
			}
			stopWatch = context.AfterFunc(ctx, func() { defer close(ended); _ = killHook(s.pidfd, s.pid) })
		case syncHookCode:
			code = msg.Value & (1<<32 - 1)
		case syncHookEnded:
			return s.ended(ctx, code, msg.Value&(1<<32-1))
		default:
			return fmt.Errorf("unknown sync point %d", msg.Tag)
		}
	}
}

// died says how it came that the stage ended while it ran a program.
func (s *stageHook) died() error {
	if s.r.pidfd == nil {
		if err := s.r.executed(); err != nil {
			return err
		}
	}
	return errors.New("the container's first process ended meanwhile")
}

// ended is the program's end; it has not been collected.
func (s *stageHook) ended(ctx context.Context, code, status uint64) error {
	const exited = 1 // CLD_EXITED
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case code != exited:
		return fmt.Errorf("killed by signal: %v", syscall.Signal(status))
	case status != 0:
		return fmt.Errorf("exit status %d", status)
	}
	return nil
}

// close ends what is left of a program that has failed, and lets go of its streams.
func (s *stageHook) close(err error) {
	if err != nil && s.pidfd >= 0 {
		_ = killHook(s.pidfd, s.pid)
	}
	s.stdin.Close()
	t := time.NewTimer(hookLinger)
	defer t.Stop()
	select {
	case <-s.copied:
	case <-t.C:
	}
	s.output.Close()
	<-s.copied
	if s.pidfd >= 0 {
		unix.Close(s.pidfd)
	}
}

// innerPid is a process's number in the pid namespace it is in.
func innerPid(pid int) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(v)
			return strconv.Atoi(f[len(f)-1])
		}
	}
	return 0, &program.StepError{Step: "look for", Object: "NSpid in /proc/PID/status", Errno: unix.ENOENT}
}
