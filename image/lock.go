package image

import (
	"context"
	"errors"
	"os"
	"time"
)

// flock(2) locks belong to an open file, so each operation opens the file anew: two operations of one program exclude each
// other as those of two programs do, and the kernel takes the lock away from a program that dies.

var errWouldBlock = errors.New("locked by another")

// lockFile opens path, which it makes where it is missing, and locks it. It waits until the lock is free or ctx ends.
func lockFile(ctx context.Context, path string, exclusive bool) (*os.File, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		f, err := tryLockFile(path, exclusive)
		if !errors.Is(err, errWouldBlock) {
			return f, err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// tryLockFile is lockFile without waiting: errWouldBlock if another has the lock.
func tryLockFile(path string, exclusive bool) (*os.File, error) {
	return tryLock(path, os.O_RDWR|os.O_CREATE, exclusive)
}

// tryLock locks a file that is opened with these flags.
func tryLock(path string, flags int, exclusive bool) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, exclusive); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
