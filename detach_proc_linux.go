package caisson

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/state"
)

// knownBoot is what bootID has read.
var knownBoot atomic.Pointer[string]

// bootID is the id that the kernel chose for this boot. It is read once; a failure, such as for want of descriptors, is not remembered.
func bootID() (string, error) {
	if id := knownBoot.Load(); id != nil {
		return *id, nil
	}
	b, err := linux.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(b))
	knownBoot.Store(&id)
	return id, nil
}

// pidNamespace is the number of this program's pid namespace.
func pidNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: "/proc/self/ns/pid", Err: err}
	}
	return st.Ino, nil
}

// errEndedEarly is why a start cannot go on when a process that it relies on was killed, by the kernel or by someone.
var errEndedEarly = errors.New("it ended before the container was made; was it killed?")

// nameProcess names the process behind a pidfd so that it can be found again. Of one that has been collected the number
// is -1, or is not found. One that has ended and not been collected is named.
func nameProcess(pidfd int) (state.Process, error) {
	pid, err := pidOf(pidfd)
	if err != nil {
		return state.Process{}, err
	}
	start, err := startTime(pid)
	if pid <= 0 || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return state.Process{}, errEndedEarly
	}
	if err != nil {
		return state.Process{}, fmt.Errorf("when process %d began: %w", pid, err)
	}
	return state.Process{PID: pid, Start: start}, nil
}

// startTime returns when a process began, in clock ticks since boot: field 22 of /proc/PID/stat, the 20th after the name,
// which may hold anything but ends at the last parenthesis.
func startTime(pid int) (uint64, error) {
	b, err := linux.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("%w: /proc/%d/stat", ErrCorruptState, pid)
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// findProcess opens a pidfd of a recorded process, or -1 if it has ended, whoever may have its number now. The descriptor
// is opened before the start time is read: if that is the recorded one, the process was alive all the time.
func findProcess(p state.Process) (int, error) {
	if p.PID <= 0 {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == unix.ESRCH || err == unix.EINVAL { // EINVAL: the number is that of a thread now
		return -1, nil
	}
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	start, err := startTime(p.PID)
	if err == nil && start == p.Start && !pollPidfd(fd, 0) {
		return fd, nil
	}
	unix.Close(fd)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	return -1, err
}
