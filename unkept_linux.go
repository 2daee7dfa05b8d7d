package caisson

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
)

// keptDetached reports whether the container has a keeper of its own.
func (r *running) keptDetached() bool { return r.det != nil && !r.spec.process.engine.unkept }

// keepChild has the program's keeper end the process with the program, unless it is to stay.
func (r *running) keepChild() (func(), error) {
	if r.spec.process.engine.unkept {
		return func() {}, nil
	}
	return stage.Keep(r.child.Pidfd)
}

// leftUncollected is the option of waitid(2) for a process that another is to collect.
func (r *running) leftUncollected() int {
	if r.spec.process.engine.unkept {
		return unix.WNOWAIT
	}
	return 0
}

// ownStatus reads how a process without a keeper ended, if it is this program's child.
func (r *running) ownStatus(rec *state.Record, res *Result) bool {
	if rec.Keeper.PID != 0 || r.pidfd == nil {
		return false
	}
	var exit linux.Exit
	err := r.pidfd.Control(func(fd int) (err error) {
		exit, err = linux.WaitidFD(fd, unix.WALL|unix.WNOWAIT|unix.WNOHANG)
		return err
	})
	if err != nil {
		return false
	}
	res.setStatus(exit.Status)
	res.CPU = cgroups.ValueOf(time.Duration(exit.Rusage.Utime.Nano() + exit.Rusage.Stime.Nano()))
	return true
}

// collectOwn collects a process without a keeper that has ended, if it is this program's child.
func (r *running) collectOwn(rec *state.Record) {
	if rec.Keeper.PID != 0 {
		return
	}
	if fd, err := findEnded(r.child.Pid); err == nil {
		_, _ = linux.WaitidFD(fd, unix.WALL|unix.WNOHANG)
		unix.Close(fd)
	}
}

// findEnded opens a child that has ended and was not collected: its number is still its own.
func findEnded(pid int) (int, error) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WALL|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return -1, err
	}
	return unix.PidfdOpen(pid, 0)
}

func (r *running) hasTerminal() bool { return r.tty != nil }

func (r *running) passPidfd(socket string) error {
	var f *os.File
	err := r.pidfd.Control(func(fd int) error {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err == nil {
			f = os.NewFile(uintptr(own), "pidfd")
		}
		return os.NewSyscallError("fcntl", err)
	})
	if errors.Is(err, os.ErrClosed) {
		return os.ErrProcessDone
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return passTo(socket, f) // which takes its time, for which the end does not wait
}

// passTimeout bounds how long a program that listens on a socket may take.
const passTimeout = 10 * time.Second

// passTo sends a file, with its name.
func passTo(socket string, f *os.File) error {
	return passMessage(socket, f.Name(), []byte(f.Name()), f)
}
