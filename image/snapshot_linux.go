package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// probeOverlay returns why overlayfs cannot have its directories in the store, or nil. Where the caller may, an overlay is really made, attached
// nowhere; an ordinary user's is made in the user namespace of a container, so what it needs is looked at piece by piece.
func (s *Store) probeOverlay() error {
	dir, err := os.MkdirTemp(s.path(dirIngest), "probe-")
	if err != nil {
		return err
	}
	defer removeTree(dir)
	for _, d := range []string{"lower", dirUpper, dirWork} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	err = tryOverlay(dir)
	if err == unix.EPERM || err == unix.ENOSYS {
		return overlayNeeds(filepath.Join(dir, dirUpper))
	}
	return sysErr("overlay", err)
}

// tryOverlay makes an overlay of the directories in dir and forgets it. EPERM says that the caller may not.
func tryOverlay(dir string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	at, err := openTreeDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	// Names are short by way of the descriptor: a value may have 255 bytes.
	base := fmt.Sprintf("/proc/self/fd/%d/", at)
	for _, o := range [][2]string{{"lowerdir", base + "lower"}, {"upperdir", base + dirUpper}, {"workdir", base + dirWork}} {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return err
		}
	}
	return unix.FsconfigCreate(fd)
}

// overlayNeeds looks for what an overlay in a user namespace needs.
func overlayNeeds(upper string) error {
	if r, err := linux.KernelRelease(); err != nil || !r.AtLeast(5, 11) {
		return errors.New("an overlay in a user namespace needs Linux 5.11")
	}
	b, err := os.ReadFile("/proc/filesystems")
	if err == nil && !containsWord(string(b), "overlay") {
		if _, err := os.Stat("/sys/module/overlay"); err != nil {
			return errors.New("the kernel has no overlayfs, or its module is not loaded")
		}
	}
	var sf unix.Statfs_t
	if err := unix.Statfs(upper, &sf); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	switch sf.Type {
	case unix.OVERLAYFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.V9FS_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return fmt.Errorf("overlayfs does not take this file system (%#x) for its changes", sf.Type)
	}
	if err := unix.Setxattr(upper, xattrOpaqueUser, []byte("y"), 0); err != nil {
		return fmt.Errorf("the file system has no extended attributes for users: %w", err)
	}
	if err := unix.Mknod(filepath.Join(upper, "whiteout"), unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("deleted files cannot be marked (mknod): %w", err)
	}
	return nil
}

func containsWord(text, word string) bool {
	return slices.Contains(strings.Fields(text), word)
}

// probeLink returns why files cannot have several names, or nil.
func probeLink(dir string) error {
	a, b := filepath.Join(dir, "probe-a"), filepath.Join(dir, "probe-b")
	defer os.Remove(a)
	defer os.Remove(b)
	if err := os.WriteFile(a, nil, 0o600); err != nil {
		return err
	}
	return linkCause(os.Link(a, b))
}

func linkCause(err error) error {
	if le := (*os.LinkError)(nil); errors.As(err, &le) {
		return sysErr("link", le.Err)
	}
	return err
}

// probeReflink returns why files cannot share blocks, or nil.
func probeReflink(dir string) error {
	a, err := os.CreateTemp(dir, "probe-")
	if err != nil {
		return err
	}
	defer a.Close()
	defer os.Remove(a.Name())
	b, err := os.CreateTemp(dir, "probe-")
	if err != nil {
		return err
	}
	defer b.Close()
	defer os.Remove(b.Name())
	if _, err := a.Write(make([]byte, 4096)); err != nil {
		return err
	}
	return linux.Control(a, func(from int) error {
		return linux.Control(b, func(to int) error { return sysErr("FICLONE", unix.IoctlFileClone(to, from)) })
	})
}

// markBoth gives every directory that hides those of lower layers the marks for both kinds of overlay, as far as the caller may.
func markBoth(dir string) error {
	a := &applier{}
	return walkTree(context.Background(), dir, func(fd int, name string, st *unix.Stat_t) error {
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		sub, err := openSub(fd, name)
		if err == unix.EACCES {
			return nil // of another id, for whom an ordinary user's containers alone make marks
		}
		if err != nil {
			return sysErr("openat", err)
		}
		defer unix.Close(sub)
		if !opaqueFD(sub) {
			return nil
		}
		return a.setOpaque(sub)
	})
}

// opaqueFD reports whether a directory hides those of lower layers.
func opaqueFD(fd int) bool {
	for _, name := range []string{xattrOpaque, xattrOpaqueUser} {
		var v [2]byte
		n, err := unix.Fgetxattr(fd, name, v[:])
		if err == nil && n == 1 && v[0] == 'y' || err == unix.EACCES && listed(handlePath(fd), name) {
			return true
		}
	}
	return false
}

// listed says that a file has an attribute. Who may not read its value is told the name all the same; layers have no other value of those of overlayfs.
func listed(path, name string) bool {
	buf := make([]byte, maxXattrList)
	n, err := unix.Listxattr(path, buf)
	return err == nil && slices.Contains(strings.Split(string(buf[:n]), "\x00"), name)
}

// measureTree adds up what a tree takes. The files of hard-linked trees belong to the layers.
func measureTree(ctx context.Context, dir string, linked bool) (u SnapshotUsage, err error) {
	seen := map[inode]bool{}
	err = walkTree(ctx, dir, func(_ int, _ string, st *unix.Stat_t) error {
		u.Files++
		regular := st.Mode&unix.S_IFMT == unix.S_IFREG
		if id := inodeOf(st); regular && st.Nlink > 1 {
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		if !regular || !linked {
			u.Bytes += st.Blocks * 512
		}
		return nil
	})
	return u, err
}

// maxTreeDepth bounds how deep a tree is looked at: as deep as a path of 4,096 bytes goes. What a container makes may be deeper.
const maxTreeDepth = 2048

// walkTree calls fn for all that is in a directory, a directory before what is in it. It goes down by descriptors and follows nothing. Directories that the caller
// may not read are passed over.
func walkTree(ctx context.Context, dir string, fn func(fd int, name string, st *unix.Stat_t) error) error {
	fd, err := openTreeDir(dir)
	if err != nil {
		return err
	}
	return walkAt(ctx, fd, 0, fn)
}

// walkAt takes the directory and closes it.
func walkAt(ctx context.Context, fd, depth int, fn func(fd int, name string, st *unix.Stat_t) error) error {
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	if depth > maxTreeDepth {
		return &LimitError{Limit: "Depth", Max: maxTreeDepth}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := statAt(fd, name)
		if err == unix.ENOENT || err == unix.EACCES { // a directory that may be read and not be searched
			continue
		}
		if err != nil {
			return sysErr("fstatat", err)
		}
		if err := fn(fd, name, st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		sub, err := openSub(fd, name)
		if err == unix.EACCES || err == unix.ENOENT {
			continue
		}
		if err != nil {
			return sysErr("openat", err)
		}
		if err := walkAt(ctx, sub, depth+1, fn); err != nil {
			return err
		}
	}
	return nil
}

// openSub opens a directory for reading.
func openSub(fd int, name string) (int, error) {
	return linux.RetryFD(func() (int, error) {
		return unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}
