package image

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/erofs"
	"github.com/caisson-go/caisson/internal/linux"
)

// isPrivileged says that files can be given away.
func isPrivileged() bool { return os.Geteuid() == 0 }

// layerRoot is the directory of an unpacked layer, which is opened when it is first needed.
type layerRoot struct {
	path  string
	fd    int
	blob  *blobFile // where the layer is a file of EROFS, which erofs reads
	erofs *erofs.Reader
}

func (r *layerRoot) close() {
	if r.blob != nil {
		r.blob.file.Close()
	}
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
}

// stat looks a directory up, without following any link in it.
func (r *layerRoot) stat(path string) (*inherited, error) {
	if filepath.Base(r.path) == fileBlob {
		return r.statBlob(path)
	}
	if r.fd < 0 {
		fd, err := openTreeDir(r.path)
		if err != nil {
			return nil, err
		}
		r.fd = fd
	}
	fd, err := linux.Openat2FD(r.fd, path, linux.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	switch err {
	case nil:
	case unix.ELOOP, unix.ENOTDIR:
		return statLink(r.fd, path)
	default:
		return nil, sysErr("openat2", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, sysErr("fstat", err)
	}
	return &inherited{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}, nil
}

// statLink is stat for a symbolic link in directories that are none.
func statLink(root int, path string) (*inherited, error) {
	parent, base := splitPath(path)
	dir := root
	if parent != "" {
		fd, err := linux.Openat2FD(root, parent, linux.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			return nil, errNoDirectory
		}
		defer unix.Close(fd)
		dir = fd
	}
	target, err := readlinkAt(dir, base)
	if err != nil {
		return nil, errNoDirectory
	}
	return &inherited{Link: target}, nil
}

// linkDir makes a symbolic link instead of a directory that no entry stands for, and reports whether there is one to make.
func (a *applier) linkDir(path string, pfd int, base string) (bool, error) {
	d, ok := a.inherited[path]
	if !ok || d.Link == "" {
		return false, nil
	}
	if err := unix.Symlinkat(d.Link, pfd, base); err != nil {
		return false, err
	}
	if !a.owners {
		return true, nil
	}
	return true, unix.Fchownat(pfd, base, 0, 0, unix.AT_SYMLINK_NOFOLLOW)
}

// inheritDirs gives implied directories what they get from below.
func (a *applier) inheritDirs() error {
	for path, d := range a.inherited {
		if _, ok := a.metas[path]; ok || d.Link != "" {
			continue // an entry came after all
		}
		fd, err := a.t.entering(path, func() (int, error) { return a.t.resolve(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW) })
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			continue // a later entry took its place
		}
		if err != nil {
			return sysErr("openat2", err)
		}
		if a.owners {
			err = sysErr("fchown", unix.Fchown(fd, int(d.UID), int(d.GID)))
		}
		if a.giver != nil {
			var st unix.Stat_t
			if err = sysErr("fstat", unix.Fstat(fd, &st)); err == nil {
				err = a.addGift(inodeOf(&st), gift{path: path, uid: d.UID, gid: d.GID, dir: true}, len(path)+192)
			}
		}
		unix.Close(fd)
		if err != nil {
			return err
		}
		t := unix.Timespec{Sec: d.Sec, Nsec: d.Nsec}
		a.metas[path] = dirMeta{mode: d.Mode, atime: t, mtime: t}
	}
	return nil
}
