package image

import (
	"hash/maphash"
	"os"

	"golang.org/x/sys/unix"
)

// hide implements form.
func (a *applier) hide(dir, name string) error {
	if a.flat {
		return a.removeLower(dir, name)
	}
	pfd, err := a.t.dir(dir)
	if err != nil {
		return err
	}
	a.mark.Whiteouts++
	err = unix.Mknodat(pfd, name, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		if err == unix.EPERM {
			return &Error{Op: "unpack", Entry: dir + "/" + whiteoutPrefix + name, Err: os.NewSyscallError("mknodat", err),
				Remedy: "a whiteout without privilege needs Linux 5.8, and a file system and seccomp filter that let it be made"}
		}
		return sysErr("mknodat", err)
	}
	st, err := statAt(pfd, name)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	return a.cover(joinPath(dir, name))
}

// hideLower implements form.
func (a *applier) hideLower(dir string) error {
	if a.flat {
		return a.emptyLower(dir)
	}
	a.mark.Whiteouts++
	if dir == "" {
		a.mark.RootOpaque = true
		return nil // overlayfs merges the roots of all layers, marked or not
	}
	return a.cover(dir)
}

// cover has a directory hide what is below it in lower layers. One that is closed already is entered first, see tree.enter.
func (a *applier) cover(dir string) error {
	if _, err := a.t.dir(dir); err != nil {
		return err
	}
	fd, err := a.t.resolve(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return a.setOpaque(fd)
}

// Marks of an opaque directory: the second one is what overlayfs reads in a user namespace (mount option userxattr, Linux
// 5.11). Both are set where both can be, so that a layer serves either kind of container.
const (
	xattrOpaque     = "trusted.overlay.opaque"
	xattrOpaqueUser = "user.overlay.opaque"
)

func (a *applier) setOpaque(fd int) error {
	err := unix.Fsetxattr(fd, xattrOpaque, []byte("y"), 0)
	uerr := unix.Fsetxattr(fd, xattrOpaqueUser, []byte("y"), 0)
	if err != nil && uerr != nil {
		return &Error{Op: "mark opaque directory", Err: os.NewSyscallError("fsetxattr", uerr),
			Remedy: "the store's file system has no extended attributes for users; put the store on ext4, xfs, btrfs, or tmpfs of Linux 6.6"}
	}
	return nil
}

var pathSeed = maphash.MakeSeed()

// madeBytes is what a hash in a map takes, while that grows too; notes count it with what the collector lets lie.
const madeBytes = 16

// remember notes a path, and its parents, as belonging to this layer.
func (a *applier) remember(path string) error {
	for p := path; ; p, _ = splitPath(p) {
		h := maphash.String(pathSeed, p)
		if _, ok := a.made[h]; ok || p == "" {
			return nil
		}
		if err := a.notes.grow(madeBytes); err != nil {
			return err
		}
		a.made[h] = struct{}{}
	}
}

func (a *applier) isMade(path string) bool {
	_, ok := a.made[maphash.String(pathSeed, path)]
	return ok
}

// removeLower is hide in a flat tree.
func (a *applier) removeLower(dir, name string) error {
	pfd, err := a.t.lookup(dir)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	path := name
	if dir != "" {
		path = dir + "/" + name
	}
	if a.isMade(path) {
		if st, err := statAt(pfd, name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return a.emptyLower(path)
		}
		return nil
	}
	_, err = a.t.clear(pfd, name)
	if err == unix.ENOENT {
		err = nil
	}
	return err
}

// emptyLower is hideLower in a flat tree: what this layer has not made goes.
func (a *applier) emptyLower(dir string) error {
	fd, err := a.t.lookup(dir)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := listAt(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := a.removeLower(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// listAt lists a directory of which an O_PATH descriptor may be all there is.
func listAt(fd int) ([]string, error) {
	n, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(n), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}
