package caps

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastFile tells the number of the newest capability, Linux 3.2.
const lastFile = "/proc/sys/kernel/cap_last_cap"

// Last returns the newest capability the running kernel has. It reads
// /proc/sys/kernel/cap_last_cap, and where /proc is not mounted, or holds
// something else, asks PR_CAPBSET_READ which numbers exist. The answer cannot
// change while the kernel runs and is asked for once.
func Last() (Cap, error) { return lastOnce() }

var lastOnce = sync.OnceValues(func() (Cap, error) { return last(lastFile) })

func last(path string) (Cap, error) {
	if c, err := readLast(path); err == nil {
		return c, nil
	}
	return searchLast()
}

func readLast(path string) (Cap, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) // os would have the runtime poll it
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var text [8]byte
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return 0, err
	}
	return parseLast(string(text[:n]))
}

// parseLast reads "40\n".
func parseLast(text string) (Cap, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(text, "\n"), 10, 8)
	if err != nil {
		return 0, err
	}
	if n == 0 || Cap(n) > maxCap {
		return 0, fmt.Errorf("last capability %d: %w", n, strconv.ErrRange)
	}
	return Cap(n), nil
}

// searchLast finds the first number the kernel refuses, by halves: numbers
// are given out without gaps.
func searchLast() (Cap, error) {
	if _, err := bounds(0); err != nil {
		return 0, err
	}
	lo, hi := Cap(0), maxCap+1 // lo exists, hi does not
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		if _, err := bounds(mid); err == nil {
			lo = mid
		} else if errors.Is(err, unix.EINVAL) {
			hi = mid
		} else {
			return 0, err
		}
	}
	return lo, nil
}

// bounds reports whether c is in the bounding set; EINVAL: no such capability.
func bounds(c Cap) (bool, error) {
	r, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
	if err != nil {
		return false, os.NewSyscallError("prctl PR_CAPBSET_READ", err)
	}
	return r == 1, nil
}

// Bounding returns the calling thread's bounding set. A Go program's threads
// all have the same one unless it changed one of them on purpose.
func Bounding() (Set, error) {
	end, err := Last()
	if err != nil {
		return 0, err
	}
	return Bounded(UpTo(end))
}

// Bounded returns those of a set that are in the calling thread's bounding set.
func Bounded(s Set) (Set, error) {
	var set Set
	for _, c := range s.Caps() {
		in, err := bounds(c)
		if err != nil {
			return 0, err
		}
		if in {
			set = set.Add(c)
		}
	}
	return set, nil
}

// Held returns the calling thread's effective, permitted and inheritable sets
// (capget(2)).
func Held() (effective, permitted, inheritable Set, err error) {
	header := Header{Version: Version3}
	var data Data
	_, _, errno := unix.RawSyscall(unix.SYS_CAPGET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 {
		return 0, 0, 0, os.NewSyscallError("capget", errno)
	}
	effective, permitted, inheritable = data.Decode()
	return effective, permitted, inheritable, nil
}
