package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/erofs"
)

// fillBlob makes a file of EROFS.
func (j *layerJob) fillBlob(ctx context.Context, work string, blob *os.File, m *mark, alone bool) error {
	path := filepath.Join(work, fileBlob)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := erofs.NewWriter(f)
	var (
		root *erofs.Node
		sum  [sha256.Size]byte
		size int64
	)
	err = j.stream(ctx, blob, alone, func(r pieces, n *notes) error {
		t := newBlobTree(ctx, w, j.s.policy, j.budget, n, m, j.inherited)
		root = t.root
		if err := t.apply(r); err != nil {
			return err
		}
		var err error
		sum, size, err = w.Finish(ctx, root) // while the memory of all that is granted
		return blobError(err)
	})
	if err != nil {
		return err
	}
	m.Mode = root.Mode & 0o777
	m.Blob = &blobMark{Sum: hex.EncodeToString(sum[:]), Size: size}
	if err := f.Close(); err != nil {
		return err
	}
	m.Blob.Verity, err = enableVerity(path)
	return err
}

// blobError tells what the layer is to blame for.
func blobError(err error) error {
	if errors.Is(err, erofs.ErrTooLarge) {
		return because(ErrBadHeader, "%v", err)
	}
	return err
}

// enableVerity lets the kernel verify a file whenever it is read, and returns the digest by which it does; nothing where the file system cannot
// (ext4 and f2fs with the feature verity, btrfs; Linux 5.4 and CONFIG_FS_VERITY). See Documentation/filesystems/fsverity.rst.
func enableVerity(path string) (string, error) {
	f, err := os.Open(path) // nobody may have it open for writing
	if err != nil {
		return "", err
	}
	defer f.Close()
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg)))
		switch errno {
		case 0:
			return measureVerity(f)
		case unix.EINTR:
			continue
		case unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.ENOMEM:
			return "", os.NewSyscallError("ioctl FS_IOC_ENABLE_VERITY", errno)
		}
		return "", nil // ENOTTY, EOPNOTSUPP; EINVAL for blocks of that size; ETXTBSY where a process is just being made that inherits the file
	}
}

// measureVerity is the digest by which the kernel verifies a file; empty where it does not.
func measureVerity(f *os.File) (string, error) {
	var d struct {
		Algorithm, Size uint16
		Digest          [64]byte
	}
	d.Size = uint16(len(d.Digest))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_MEASURE_VERITY, uintptr(unsafe.Pointer(&d)))
	runtime.KeepAlive(f)
	switch errno {
	case 0:
	case unix.ENODATA, unix.ENOTTY, unix.EOPNOTSUPP:
		return "", nil
	default:
		return "", os.NewSyscallError("ioctl FS_IOC_MEASURE_VERITY", errno)
	}
	if d.Algorithm != unix.FS_VERITY_HASH_ALG_SHA256 || d.Size != 32 {
		return "", because(ErrCorrupt, "fs-verity by algorithm %d", d.Algorithm)
	}
	return "sha256:" + hex.EncodeToString(d.Digest[:32]), nil
}

// checkVerity compares what the kernel verifies a file by with what was written down.
func checkVerity(f *os.File, want string) error {
	got, err := measureVerity(f)
	if err == nil && got != want {
		if got == "" {
			got = "none"
		}
		err = because(ErrDigest, "fs-verity's digest of %s is %s, its mark says %s", fileBlob, got, clip(want))
	}
	return err
}

// statBlob is stat for a file of EROFS.
func (r *layerRoot) statBlob(path string) (*inherited, error) {
	if r.blob == nil {
		b, err := openBlobAt(r.path)
		if err != nil {
			return nil, err
		}
		r.blob = b
	}
	if r.erofs == nil {
		e, err := erofs.Open(r.blob.file, r.blob.size)
		if err != nil {
			return nil, errors.Join(ErrCorrupt, err)
		}
		r.erofs = e
	}
	f, depth, err := r.erofs.Lookup(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, errors.Join(ErrCorrupt, err)
	case f.IsDir():
		return &inherited{Mode: f.Mode & 0o7777, UID: f.UID, GID: f.GID, Sec: f.Sec, Nsec: int64(f.Nsec)}, nil
	case f.IsLink() && depth == components(path):
		return &inherited{Link: f.Target}, nil
	}
	return nil, errNoDirectory
}
