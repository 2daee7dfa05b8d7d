package namespaces

import (
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// onDiscardedThread runs f on an operating system thread that ends with it, and returns its error. A panic of f becomes
// one of the caller, and so does runtime.Goexit.
func onDiscardedThread(f func() error) error {
	var out outcome
	done := make(chan struct{})
	go runLocked(f, &out, done)
	<-done
	switch {
	case out.panicked != nil:
		panic(out.panicked)
	case !out.returned:
		runtime.Goexit()
	}
	return out.err
}

type outcome struct {
	err      error
	returned bool
	panicked *Panic
}

// runLocked ends without unlocking its thread, which makes the runtime destroy the thread with all that was done to it.
// The main thread is the exception: the runtime only parks it, and may use it again for other goroutines; it is also
// what /proc/PID shows of the process. A goroutine that finds itself on it holds it until another has found another
// thread.
func runLocked(f func() error, out *outcome, done chan<- struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		elsewhere := make(chan struct{})
		go runLocked(f, out, elsewhere)
		<-elsewhere
		close(done)
		return
	}
	defer close(done)
	defer func() {
		if out.returned {
			return
		}
		// nil: runtime.Goexit, for a panic with nil has a value of its own.
		if v := recover(); v != nil {
			out.panicked = &Panic{Value: v, Stack: debug.Stack()}
		}
	}()
	out.err = f()
	out.returned = true
}
