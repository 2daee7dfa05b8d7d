package linux

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Control calls fn with the descriptor of f and keeps f open until fn returns, even when another goroutine
// closes f meanwhile. It leaves the blocking mode of f as it is. A nil or closed f is os.ErrClosed or
// os.ErrInvalid; fn is not called then.
func Control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("use of file: %w", err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return os.ErrClosed // the only cause; os gives a private error here
	}
	return inner
}

// Retry repeats fn for as long as it answers EINTR.
func Retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// RetryFD is [Retry] for calls that return a number.
func RetryFD(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// newFile is the common end of the calls that make a descriptor.
func newFile(call, name string, fd int, err error) (*os.File, error) {
	if err != nil {
		return nil, os.NewSyscallError(call, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
