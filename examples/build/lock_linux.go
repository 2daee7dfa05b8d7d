package main

import (
	"context"
	"os"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"
)

// lockCache takes the lock of a cache: shared by default; alone, waiting for others, where it is locked; and alone or not at all where
// it is private.
func lockCache(ctx context.Context, name string, mode instructions.ShareMode) (unlock func() error, ok bool, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	how := unix.LOCK_SH
	if mode == instructions.MountSharingLocked || mode == instructions.MountSharingPrivate {
		how = unix.LOCK_EX
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return f.Close, true, nil
		case err == unix.EINTR:
			continue
		case err != unix.EWOULDBLOCK:
			f.Close()
			return nil, false, &os.PathError{Op: "flock", Path: name, Err: err}
		case mode == instructions.MountSharingPrivate:
			return nil, false, f.Close()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, false, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
