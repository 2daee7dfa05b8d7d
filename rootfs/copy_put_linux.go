package rootfs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// attrs is what a copy keeps of a file beside its data.
type attrs struct {
	mode     uint32
	uid, gid uint32
	mtime    unix.Timespec
}

func attrsOf(st *unix.Stat_t) attrs {
	return attrs{mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, mtime: st.Mtim}
}

func mtimeOf(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil || t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return ts
}

// tempName is a name nobody can guess, in the directory of the final one.
func tempName() (string, error) {
	text, err := linux.RandomText()
	return ".caisson-" + text, err
}

// putFile makes a file under a temporary name and renames it when it is whole, so that it writes through no
// link and no device, and nobody sees half a file.
func (c *copier) putFile(dir int, name string, a attrs, src *os.File, fill func(*os.File) error) error {
	temp, err := tempName()
	if err != nil {
		return err
	}
	fd, err := c.to.openat(dir, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	if err = fill(dst); err == nil {
		err = c.setAttrs(dst, src, a)
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return c.settle(dir, temp, name, err)
}

// putLink makes a symbolic link in the same way.
func (c *copier) putLink(dir int, name, text string, a attrs) error {
	temp, err := tempName()
	if err != nil {
		return err
	}
	if err := c.to.symlink(text, dir, temp); err != nil {
		return err
	}
	err = c.own(a, func(uid, gid int) error {
		return unix.Fchownat(dir, temp, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err == nil {
		err = c.to.setTime(dir, temp, a.mtime)
	}
	return c.settle(dir, temp, name, err)
}

// settle gives a finished file its name, or removes it after a failure.
func (c *copier) settle(dir int, temp, name string, err error) error {
	if err == nil {
		err = c.to.rename(dir, temp, name)
	}
	if err != nil {
		_ = c.to.unlink(dir, temp)
	}
	return err
}

// putDir makes a directory, or takes one that is there but no link to one, fills it and then gives it its
// attributes; until then only the caller may enter a new one.
func (c *copier) putDir(dir int, name string, a attrs, src *os.File, fill func(dst int) error) error {
	made := false
	if name != "." {
		err := c.to.mkdir(dir, name, 0o700)
		if made = err == nil; err != nil && err != unix.EEXIST {
			return err
		}
	}
	fd, err := c.to.openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	defer dst.Close()
	if err := fill(fd); err != nil || !made {
		return err
	}
	return c.setAttrs(dst, src, a)
}

// setAttrs sets owner, extended attributes, mode and time in the order in which none undoes another.
func (c *copier) setAttrs(dst, src *os.File, a attrs) error {
	return linux.Control(dst, func(fd int) error {
		if err := c.own(a, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
			return err
		}
		if err := c.copyXattrs(fd, src); err != nil {
			return err
		}
		mode := a.mode
		if !c.KeepSetID {
			mode &^= unix.S_ISUID | unix.S_ISGID
		}
		if err := c.to.chmod(fd, mode); err != nil {
			return err
		}
		return c.to.setTime(fd, "", a.mtime)
	})
}

// own calls chown with the mapped owner, if owners are kept.
func (c *copier) own(a attrs, chown func(uid, gid int) error) error {
	if c.Owner == nil {
		return nil
	}
	uid, gid, err := c.Owner(a.uid, a.gid)
	if err != nil {
		return err
	}
	if uid > maxID || gid > maxID {
		return unix.EOVERFLOW
	}
	return chown(int(uid), int(gid))
}
