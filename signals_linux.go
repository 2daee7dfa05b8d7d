package caisson

import (
	"os/signal"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ignoredSignals returns the signals that this process ignores: set by the program, or inherited by it. A command begins
// with none; one too many in the list does no harm.
//
// As long as no C code runs, only package os/signal changes what is done with a signal, and it knows which ones it
// ignores: the kernel is asked for what others have set, once more when C code may have run since.
func ignoredSignals() (list []int) {
	others := ignoredByOthers()
	for sig := 1; sig <= 64; sig++ {
		if others&(1<<sig) != 0 || signal.Ignored(unix.Signal(sig)) {
			list = append(list, sig)
		}
	}
	return list
}

var othersIgnored struct {
	mu    sync.Mutex
	known bool
	calls int64 // of C code, by then
	set   uint64
}

func ignoredByOthers() uint64 {
	o := &othersIgnored
	o.mu.Lock()
	defer o.mu.Unlock()
	if calls := runtime.NumCgoCall(); !o.known || calls != o.calls {
		o.known, o.calls, o.set = true, calls, kernelIgnored()
	}
	return o.set
}

// kernelIgnored asks the kernel, of the signals that others than package os/signal ignore: those below the real-time ones.
func kernelIgnored() (set uint64) {
	const sigIgn = 1
	for sig := 1; sig <= 31; sig++ {
		var act [4]uint64 // struct sigaction of the kernel: handler, flags, restorer or mask, mask
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0)
		if e == 0 && act[0] == sigIgn {
			set |= 1 << sig
		}
	}
	return set
}
