package netns

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A container's namespace that holds a device which is not to be lost is kept by a mount, so that the device can be removed, or
// taken back, also by another program, and after the container's end.

func (s *store) pinPath(ref endpointRef) string {
	return filepath.Join(s.netDir(ref.Network), "ns", ref.ID)
}

// pin keeps a namespace for an endpoint.
func (s *store) pin(ref endpointRef, ns *os.File) error {
	path := s.pinPath(ref)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(fdPath(int(ns.Fd())), path, "", unix.MS_BIND, ""); err != nil {
		return &Error{Op: "keep network namespace", Object: path, Err: privileged(os.NewSyscallError("mount", err)),
			Remedy: remedy(err, "CAP_SYS_ADMIN in the user namespace that owns the mount namespace", "a bridge network does without")}
	}
	return nil
}

// pinned opens the namespace of an endpoint; nil if it was not kept, or cannot be seen from here.
func (s *store) pinned(ref endpointRef) (*Namespace, error) {
	ns, err := Open(s.pinPath(ref))
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalid) {
		return nil, nil
	}
	return ns, err
}

// unpin lets go of it.
func (s *store) unpin(ref endpointRef) error {
	path := s.pinPath(ref)
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return os.NewSyscallError("umount2", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
