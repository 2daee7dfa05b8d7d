package caisson

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalAll signals the processes of the group; without one those of the pid namespace.
func (r *running) signalAll(sig syscall.Signal) error {
	if r == nil || r.pidfd == nil && r.group == nil {
		return nil
	}
	if sig == unix.SIGKILL && r.group != nil {
		r.noteEnding()
		err := r.killGroup()
		r.unfreeze()
		return err
	}
	opened, err := r.openAll()
	// A number may have been given to a stranger before it was opened; then it is not the container's now.
	still, serr := r.pids()
	faults := []error{err, serr}
	for pid, fd := range opened {
		if slices.Contains(still, pid) {
			err = unix.PidfdSendSignal(fd, sig, nil, 0)
			if err != nil && err != unix.ESRCH {
				faults = append(faults, fmt.Errorf("signal process %d: %w", pid, err))
			}
		}
		unix.Close(fd)
	}
	err = errors.Join(faults...)
	if goneGroup(err) {
		return nil
	}
	return err
}

// openAll opens every process of the container that has not ended.
func (r *running) openAll() (map[int]int, error) {
	pids, err := r.pids()
	all := make(map[int]int, len(pids))
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			all[pid] = fd
		}
	}
	return all, err
}
