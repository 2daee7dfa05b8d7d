package image

import (
	"archive/tar"
	"context"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/namespaces"
)

// gift is what a file gets when its layer is complete: until then it is the caller's, who makes further names of it and files in it.
type gift struct {
	path     string   // the last one by which it was named
	links    []string // further names, of hard links
	uid, gid uint32
	mode     uint32
	xattrs   map[string]string
	dir      bool
}

// inode is a file, by whichever path it is reached. One that is removed may leave its number to another.
type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

// givenXattr says that an attribute names ids, or holds for a user namespace, so that it must be set in the right one.
func (a *applier) givenXattr(name string) bool {
	return a.giver != nil && (name == xattrCaps || strings.HasPrefix(name, "system.posix_acl_"))
}

// noteGift remembers what the file at path is to get.
func (a *applier) noteGift(hdr *tar.Header, path string) error {
	if a.giver == nil || hdr.Typeflag == tar.TypeLink && len(a.gifts) == 0 {
		return nil
	}
	if hdr.Typeflag == tar.TypeLink {
		return a.noteLink(path)
	}
	g := gift{uid: uint32(hdr.Uid), gid: uint32(hdr.Gid), mode: a.mode(hdr), dir: hdr.Typeflag == tar.TypeDir}
	if !a.giver.has(hdr.Uid, hdr.Gid) {
		g.uid, g.gid = 0, 0
	}
	size := len(path) + 192
	for k, v := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrRecord); ok && a.mayXattr(name) && a.givenXattr(name) {
			if g.xattrs == nil {
				g.xattrs = map[string]string{}
			}
			g.xattrs[name] = v
			size += len(k) + len(v) + 64
		}
	}
	if len(a.gifts) == 0 && g.none() {
		return nil
	}
	id, err := a.inodeAt(path)
	if err == unix.ENOENT {
		return nil // a device that was left out
	}
	if err != nil {
		return sysErr("fstatat", err)
	}
	g.path = path
	return a.addGift(id, g, size)
}

// inodeAt looks at what an entry has made.
func (a *applier) inodeAt(path string) (inode, error) {
	parent, base := splitPath(path)
	at, err := a.t.lookup(parent)
	if err != nil {
		return inode{}, err
	}
	var st unix.Stat_t
	if path == "" {
		err = unix.Fstat(at, &st)
	} else {
		err = unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	return inodeOf(&st), err
}

// noteLink remembers a further name of a file that is given away: the first may be gone then.
func (a *applier) noteLink(path string) error {
	id, err := a.inodeAt(path)
	if err != nil {
		return sysErr("fstatat", err)
	}
	g, ok := a.gifts[id]
	if !ok {
		return nil
	}
	if err := a.notes.grow(len(path) + 32); err != nil {
		return err
	}
	g.links = append(g.links, path)
	a.gifts[id] = g
	return nil
}

// none says that there is nothing to give.
func (g gift) none() bool { return g.uid == 0 && g.gid == 0 && g.xattrs == nil }

// addGift takes the place of what the file was to get before, or of what the one was that had its number.
func (a *applier) addGift(id inode, g gift, size int) error {
	if g.none() {
		delete(a.gifts, id)
		return nil
	}
	if err := a.notes.grow(size); err != nil {
		return err
	}
	if a.gifts == nil {
		a.gifts = map[inode]gift{}
	}
	a.gifts[id] = g
	return nil
}

// giveFiles gives all but directories away. These follow when they get their modes, the deepest first, since the caller cannot go through afterwards.
func (a *applier) giveFiles() error {
	for id, g := range a.gifts {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		if g.dir {
			continue
		}
		if err := a.giveFile(id, g); err != nil {
			return &Error{Op: "give away", Entry: g.path, Err: err}
		}
	}
	return nil
}

func (a *applier) giveFile(id inode, g gift) error {
	found, err := a.giveNamed(g.path, id, g)
	for _, path := range g.links {
		if found || err != nil {
			break
		}
		found, err = a.giveNamed(path, id, g)
	}
	return err
}

// giveNamed reports whether the file was at path; a later entry may have taken its place.
func (a *applier) giveNamed(path string, id inode, g gift) (bool, error) {
	fd, err := a.t.resolve(path, unix.O_PATH|unix.O_NOFOLLOW)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return false, nil
	default:
		return false, sysErr("openat2", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, sysErr("fstat", err)
	}
	if inodeOf(&st) != id || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil
	}
	return true, a.giveFD(fd, &st, g)
}

func (a *applier) giveFD(fd int, st *unix.Stat_t, g gift) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		a.mark.Xattrs += int64(len(g.xattrs)) // fsetxattr(2) takes no descriptor of O_PATH, and others cannot be had safely of what is no regular file
		g.xattrs = nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || g.xattrs == nil && g.mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return a.give(fd, g, false)
	}
	// What is set afterwards needs a descriptor that is not of O_PATH.
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if err := unix.Chmod(self, 0o600); err != nil {
		return sysErr("chmod", err)
	}
	open, err := linux.RetryFD(func() (int, error) { return unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return sysErr("open", err)
	}
	defer unix.Close(open)
	return a.give(open, g, true)
}

// give gives an open file away, and then what a change of the owner takes away.
func (a *applier) give(fd int, g gift, chmod bool) error {
	o, err := a.giver.get()
	if err != nil {
		return err
	}
	if g.uid != 0 || g.gid != 0 {
		if err := o.Chown(fd, g.uid, g.gid); err != nil {
			return sysErr("fchownat", err)
		}
	}
	for name, value := range g.xattrs {
		if err := o.Setxattr(fd, name, []byte(value)); err == unix.EPERM {
			a.mark.Xattrs++
		} else if err != nil {
			return sysErr("fsetxattr", err)
		}
	}
	if !chmod {
		return nil
	}
	return sysErr("fchmod", o.Chmod(fd, g.mode))
}

// giveDir gives an open directory away that has its mode.
func (a *applier) giveDir(fd int) error {
	if len(a.gifts) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return sysErr("fstat", err)
	}
	g, ok := a.gifts[inodeOf(&st)]
	if !ok || !g.dir {
		return nil
	}
	return a.give(fd, g, false)
}

// realPaths gives directories that are given away the names that they have without symbolic links: once one is, the caller can reach neither it by
// another name, nor by that name what is in it. What the last entry says holds.
func (a *applier) realPaths() error {
	if len(a.gifts) == 0 {
		return nil
	}
	root, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(a.t.root))
	if err != nil {
		return err
	}
	metas := make(map[string]dirMeta, len(a.metas))
	for path, m := range a.metas {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		real, err := a.realPath(root, path)
		if err != nil {
			return &Error{Op: "unpack", Entry: path, Err: err}
		}
		if known, ok := metas[real]; !ok || known.entry < m.entry {
			metas[real] = m
		}
	}
	a.metas = metas
	return nil
}

// realPath returns path itself where nothing is there, or its name is too long.
func (a *applier) realPath(root, path string) (string, error) {
	if path == "" {
		return path, nil
	}
	fd, err := a.t.resolve(path, unix.O_PATH|unix.O_NOFOLLOW)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return path, nil
	default:
		return "", sysErr("openat2", err)
	}
	defer unix.Close(fd)
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return path, nil
	}
	if inside, ok := strings.CutPrefix(real, root+"/"); ok {
		return inside, nil
	}
	return path, nil
}

// reclaim makes everything below dir the caller's again, to whichever subordinate id it belongs, so that it can be removed.
func reclaim(ctx context.Context, dir string) error {
	auto, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err != nil || auto.Style != namespaces.RootIsCaller {
		return err
	}
	o, err := namespaces.NewOwners(ctx, auto.IDMaps)
	if err != nil {
		return err
	}
	defer o.Close()
	me := uint32(os.Geteuid())
	take := func(fd int, st *unix.Stat_t) error {
		if st.Uid != me {
			if err := o.Chown(fd, 0, 0); err != nil {
				return sysErr("fchownat", err)
			}
		}
		return sysErr("chmod", unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o700))
	}
	// Deeper directories than files can be open come up, which takes that they are the caller's.
	for n := 0; ; {
		fd, err := openTreeDir(dir)
		if err != nil {
			return err
		}
		deeper, err := reclaimAt(ctx, fd, reclaimDepth, take)
		if err != nil || !deeper {
			return err
		}
		if _, err := flattenOnce(dir, reclaimDepth, &n); err != nil {
			return err
		}
	}
}

// reclaimDepth is how deep directories are reclaimed at once.
const reclaimDepth = 256

// reclaimAt takes a directory, and closes it. It reports whether there are directories deeper than limit; of these the first are reclaimed.
func reclaimAt(ctx context.Context, fd, limit int, take func(fd int, st *unix.Stat_t) error) (deeper bool, err error) {
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		st, err := statAt(fd, name)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return false, sysErr("fstatat", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue // whoever owns the directory can remove it
		}
		if err := reclaimDir(fd, name, st, take); err != nil {
			return false, err
		}
		if limit == 0 {
			deeper = true
			continue
		}
		sub, err := openSub(fd, name)
		if err != nil {
			return false, sysErr("openat", err)
		}
		below, err := reclaimAt(ctx, sub, limit-1, take)
		if err != nil {
			return false, err
		}
		deeper = deeper || below
	}
	return deeper, nil
}

func reclaimDir(parent int, name string, st *unix.Stat_t, take func(fd int, st *unix.Stat_t) error) error {
	fd, err := linux.RetryFD(func() (int, error) {
		return unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return sysErr("openat", err)
	}
	defer unix.Close(fd)
	return take(fd, st)
}
