package rootfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// viewHost reads what a view of the host is planned from.
func viewHost(unprivileged bool) (*hostView, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, &Error{Op: "read mounts of the host", Err: err}
	}
	defer f.Close()
	entries, err := parseMountinfo(f)
	if err != nil {
		return nil, &Error{Op: "read mounts of the host", Err: err}
	}
	v := &hostView{list: listDir, unprivileged: unprivileged}
	for _, e := range entries {
		fi, err := os.Lstat(e.point)
		v.mounts = append(v.mounts, hostMount{mountEntry: e, file: err == nil && !fi.IsDir()})
	}
	return v, nil
}

func listDir(dir string) ([]hostEntry, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []hostEntry
	for _, n := range names {
		fi, err := n.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		e := hostEntry{name: n.Name(), mode: fi.Mode()}
		if e.mode&fs.ModeSymlink != 0 {
			if e.link, err = os.Readlink(filepath.Join(dir, e.name)); err != nil {
				return nil, err
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// maxSecrets bounds how many paths are masked.
const maxSecrets = 1000

// findSecrets looks through what is shown for what must be masked: with own, files and directories that the
// caller may use and others may not; with sockets, the sockets and named pipes in directories
// that are shown without an overlay.
func findSecrets(ctx context.Context, v *hostView, own, sockets bool) ([]string, error) {
	s := search{ctx: ctx}
	for _, p := range v.parts {
		if sockets && p.Bind && p.Layer != nil && !p.file {
			s.dir, s.sockets, s.own = p.Layer.Path, true, false
			if err := s.run(); err != nil {
				return nil, err
			}
		}
	}
	if own {
		for _, dir := range v.scan {
			s.dir, s.sockets, s.own = dir, false, true
			if err := s.run(); err != nil {
				return nil, err
			}
		}
	}
	return s.found, nil
}

type search struct {
	ctx          context.Context
	dir          string
	sockets, own bool
	found        []string
}

func (s *search) run() error {
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // what the caller cannot list, the container cannot either
	}
	if err := s.walk(fd, s.dir); err != nil {
		return err
	}
	if len(s.found) > maxSecrets {
		return &Error{Op: "hide files of the caller in", Object: s.dir, Err: errors.New("there are too many"),
			Remedy: "get subordinate ids for the user (/etc/subuid, /etc/subgid), which make it unnecessary"}
	}
	return nil
}

// walk looks through the open directory fd, and closes it.
func (s *search) walk(fd int, path string) error {
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if !s.own && e.Type()&(fs.ModeDir|fs.ModeSocket|fs.ModeNamedPipe) == 0 {
				continue // spares a call for each file, which file systems of a network take long for
			}
			if err := s.entry(fd, path+"/"+e.Name(), e.Name()); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// owns says that the file is the caller's: the container's root user reads it whatever its mode.
func (s *search) owns(st *unix.Stat_t) bool { return int(st.Uid) == os.Getuid() }

func (s *search) entry(dir int, path, name string) error {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFDIR && s.own && st.Mode&0o001 == 0:
		if s.owns(&st) || unix.Faccessat(dir, name, unix.X_OK, 0) == nil {
			s.found = append(s.found, path)
		}
		return nil
	case kind == unix.S_IFDIR:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		return s.walk(fd, path)
	case (kind == unix.S_IFSOCK || kind == unix.S_IFIFO) && s.sockets: // a read-only mount keeps nobody from writing to either
		s.found = append(s.found, path)
	case kind == unix.S_IFREG && s.own && st.Mode&0o004 == 0 && (s.owns(&st) || unix.Faccessat(dir, name, unix.R_OK, 0) == nil):
		s.found = append(s.found, path)
	}
	return nil
}
