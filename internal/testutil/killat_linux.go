package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// KillAt runs a program and counts the system calls of all its threads, and of all the processes that come from it, in the order in
// which they are made. Whoever is about to make the nth is killed, with all its threads, and the others go on. It returns
// when the program has ended: how many calls were counted, and fewer than n mean that nobody was killed.
//
// This is not what strace --inject=all:signal=KILL:when=N does, which counts for each thread and each system call apart, so
// that most calls are never the nth.
//
// Processes that come from the program and go on after its end are waited for as long as patience says.
//
// Of cmd it uses Args, Env and Stdout, which is a file. A traced program gains no privilege by set-user-id files.
func KillAt(cmd *exec.Cmd, n int, patience time.Duration) (calls int, err error) {
	return killWith(cmd, n, patience, traceAll)
}

// KillThreadsAt is [KillAt] that counts the system calls of the program's threads alone. The programs that it runs, newuidmap among them, are not traced
// and gain the privileges that they have otherwise.
func KillThreadsAt(cmd *exec.Cmd, n int) (calls int, err error) {
	return killWith(cmd, n, 0, traceThreads)
}

func killWith(cmd *exec.Cmd, n int, patience time.Duration, options uintptr) (calls int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The tracer is a thread. It is not given back, so that with it all is detached that is traced still.
		runtime.LockOSThread()
		calls, err = killAt(exe, cmd, n, patience, options)
	}()
	<-done
	return calls, err
}

const (
	traceThreads = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC
	traceAll     = traceThreads | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
)

func killAt(exe string, cmd *exec.Cmd, n int, patience time.Duration, options uintptr) (calls int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	out := null
	if f, ok := cmd.Stdout.(*os.File); ok {
		out = f
	}
	pid, err := syscall.ForkExec(exe, cmd.Args, &syscall.ProcAttr{
		Env: cmd.Env, Files: []uintptr{null.Fd(), out.Fd(), null.Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, err
	}
	if err := seize(pid, options); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
		return 0, err
	}
	t := tracer{inside: map[int]bool{}}
	flags, end := unix.WALL|unix.WNOTHREAD, time.Time{}
	for end.IsZero() || time.Now().Before(end) {
		all, err := changes(flags)
		switch {
		case err == unix.ECHILD && !end.IsZero(): // all have ended
			return t.calls, nil
		case err != nil:
			return t.calls, fmt.Errorf("wait4: %w", err)
		case len(all) == 0:
			time.Sleep(2 * time.Millisecond)
		}
		for _, c := range all {
			switch {
			case c.tid == pid && (c.ws.Exited() || c.ws.Signaled()):
				flags, end = flags|unix.WNOHANG, time.Now().Add(patience)
			case c.ws.Stopped():
				t.stopped(c.tid, c.ws, n)
			}
		}
	}
	return t.calls, nil
}

type change struct {
	tid int
	ws  unix.WaitStatus
}

// changes waits for something to happen and takes all that has, before any thread goes on. The kernel tells of the youngest thread first: one
// that asks again and again for what another one holds would keep that one from ever being heard of.
func changes(flags int) (all []change, err error) {
	for {
		var c change
		c.tid, err = unix.Wait4(-1, &c.ws, flags, nil)
		switch {
		case err == unix.EINTR:
		case len(all) > 0 && (err != nil || c.tid == 0):
			return all, nil
		case err != nil || c.tid == 0:
			return nil, err
		default:
			all, flags = append(all, c), flags|unix.WNOHANG
		}
	}
}

// seize attaches to a program that has asked to be traced in the way in which new threads begin without SIGSTOP: with one, they would
// stay stopped if the tracer ended just then.
func seize(pid int, options uintptr) error {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		return fmt.Errorf("the program does not begin: %#x, %w", ws, err)
	}
	for _, step := range []struct {
		what    string
		request int
		data    uintptr
	}{{"detach", unix.PTRACE_DETACH, uintptr(unix.SIGSTOP)}, {"seize", unix.PTRACE_SEIZE, options}} {
		if err := ptrace(step.request, pid, step.data); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return unix.Kill(pid, unix.SIGCONT)
}

func ptrace(request, pid int, data uintptr) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), 0, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

type tracer struct {
	calls  int
	over   bool         // somebody was killed
	inside map[int]bool // a system call, by thread
}

func (t *tracer) stopped(tid int, ws unix.WaitStatus, n int) {
	signal := uintptr(0)
	switch sig := ws.StopSignal(); {
	case sig == unix.SIGTRAP|0x80:
		if t.inside[tid] = !t.inside[tid]; !t.inside[tid] || t.over {
			break
		}
		if t.calls++; t.calls >= n {
			t.over = true
			_ = unix.Kill(tid, unix.SIGKILL) // of a thread it means the whole process
			return
		}
	case ws>>16 == 0: // no event
		signal = uintptr(sig)
	}
	how := unix.PTRACE_SYSCALL
	if t.over {
		how = unix.PTRACE_CONT
	}
	_ = ptrace(how, tid, signal)
}
