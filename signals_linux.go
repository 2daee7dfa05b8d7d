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
// As long as no C code has run, only package os/signal changes what is done with a signal, and it knows which ones it
// ignores: the kernel is asked once, for what was inherited.
func ignoredSignals() (list []int) {
	inherited := inheritedIgnored()
	if runtime.NumCgoCall() > 0 {
		inherited = kernelIgnored()
	}
	for sig := 1; sig <= 64; sig++ {
		if inherited&(1<<sig) != 0 || signal.Ignored(unix.Signal(sig)) {
			list = append(list, sig)
		}
	}
	return list
}

var inheritedIgnored = sync.OnceValue(kernelIgnored)

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
