package image

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/namespaces"
)

// gift is what a file gets when its layer is complete: until then it is the caller's, who makes further names of it and files in it.
type gift struct {
	path     string   // the last one by which an entry made it
	links    []string // further ones
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

// givenOwner says that the file is to belong to another than the caller.
func (a *applier) givenOwner(hdr *tar.Header) bool {
	return a.giver != nil && (hdr.Uid != 0 || hdr.Gid != 0) && a.giver.has(hdr.Uid, hdr.Gid)
}

// noteGift remembers what the file at path is to get.
func (a *applier) noteGift(hdr *tar.Header, path string) error {
	if a.giver == nil {
		return nil
	}
	if hdr.Typeflag == tar.TypeLink {
		return a.noteLink(path)
	}
	g := gift{mode: a.mode(hdr), dir: hdr.Typeflag == tar.TypeDir}
	if a.givenOwner(hdr) {
		g.uid, g.gid = uint32(hdr.Uid), uint32(hdr.Gid)
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
	id, name, err := a.entryInode(path)
	if errors.Is(err, unix.ENOENT) {
		return nil // a device that was left out
	}
	if err != nil {
		return err
	}
	g.path = name
	return a.addGift(id, g, size)
}

// noteLink remembers another name of a file that is to be given away: what an entry made may be reached by none but this in the end.
func (a *applier) noteLink(path string) error {
	if len(a.gifts) == 0 {
		return nil
	}
	id, name, err := a.entryInode(path)
	if err != nil {
		return err
	}
	g, ok := a.gifts[id]
	if !ok || g.path == name || len(g.links) > 0 && g.links[len(g.links)-1] == name {
		return nil
	}
	g.links = append(g.links, name)
	return a.addGift(id, g, len(name)+32)
}

// entryInode finds what an entry made, and the name by which it is found also when symbolic links on the way there are others later.
func (a *applier) entryInode(path string) (inode, string, error) {
	parent, base := splitPath(path)
	at, err := a.t.lookup(parent)
	if err != nil {
		return inode{}, "", sysErr("openat2", err)
	}
	var st unix.Stat_t
	if path == "" {
		err = unix.Fstat(at, &st)
	} else {
		err = unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return inode{}, "", sysErr("fstatat", err)
	}
	if parent == "" {
		return inodeOf(&st), path, nil
	}
	root, err := linkOf(a.t.root)
	if err != nil {
		return inode{}, "", err
	}
	if real := nameBelow(root, at, parent) + "/" + base; len(real) < maxPath {
		path = real
	}
	return inodeOf(&st), path, nil
}

// linkOf is the name of an open file.
func linkOf(fd int) (string, error) { return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) }

// nameBelow is the name of an open file beneath the root, or path where that is too long.
func nameBelow(root string, fd int, path string) string {
	real, err := linkOf(fd)
	if real == root {
		return ""
	}
	if inside, ok := strings.CutPrefix(real, root+"/"); err == nil && ok {
		return inside
	}
	return path
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
		for _, name := range append(g.links, g.path) {
			done, err := a.giveFile(id, g, name)
			if err != nil {
				return &Error{Op: "give away", Entry: name, Err: err}
			}
			if done {
				break
			}
		}
	}
	return nil
}

// giveFile reports whether the file was found there.
func (a *applier) giveFile(id inode, g gift, name string) (bool, error) {
	fd, err := a.t.resolve(name, unix.O_PATH|unix.O_NOFOLLOW)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return false, nil // a later entry took its place
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
	return true, a.giveOpen(fd, &st, g)
}

// giveOpen gives away a file that is open with O_PATH.
func (a *applier) giveOpen(fd int, st *unix.Stat_t, g gift) error {
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
	root, err := linkOf(a.t.root)
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
	return nameBelow(root, fd, path), nil
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
