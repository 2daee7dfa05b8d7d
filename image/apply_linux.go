package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// applier writes the entries of one layer into a tree.
type applier struct {
	ctx    context.Context
	t      *tree
	policy Policy
	limits Limits
	budget *budget
	flat   bool // whiteouts remove files instead of being written
	owners bool // the caller may give files away
	mark   *mark
	// metas holds mode and times of directories until the layer is complete: what is written into them changes their
	// times, and their mode may forbid it.
	metas     map[string]dirMeta
	metaBytes int
	metaCount int
	// made holds, in a flat tree, hashes of the paths of this layer, since whiteouts do not hide them.
	made map[uint64]struct{}
	// finished says that directories have their modes already: a set-group-ID one gives its group to what is made in it.
	finished bool
	// implied are the directories that no entry stands for yet; replaced says that something was removed that was in the way of an entry.
	implied      map[string]struct{}
	impliedBytes int
	replaced     bool
	giver        *giver // nil: files belong to the caller, or to whom the image says
	gifts        map[inode]gift
	notes        *notes
	inherited    map[string]inherited // what directories without an entry get
	buf          []byte
}

type dirMeta struct {
	mode         uint32
	acl          string // the default access list, which what is made in the directory inherits
	atime, mtime unix.Timespec
	entry        int // the number of the entry, counted from 1
}

// dirMetaBytes is not less than what a dirMeta takes in a map, without its strings.
const dirMetaBytes = 208

// maxMetaBytes bounds what metas takes. A layer with more directories has them finished in between. Tests lower it.
var maxMetaBytes = 16 << 20

// apply reads the archive of a layer to its end.
func (a *applier) apply(r pieces) error { return a.walker().walk(newEntries(r, a.buf)) }

func (a *applier) walker() *walker {
	return &walker{ctx: a.ctx, policy: a.policy, budget: a.budget, mark: a.mark, notes: a.notes, into: a}
}

// begin implements form.
func (a *applier) begin(path string) error {
	if a.flat {
		return a.remember(path)
	}
	return nil
}

// end implements form.
func (a *applier) end(hdr *tar.Header, path string) error { return a.noteGift(hdr, path) }

func (a *applier) putRoot(hdr *tar.Header) error {
	root, err := a.t.lookup("")
	if err != nil {
		return err
	}
	return a.putDirMeta(root, "", hdr)
}

// place is where an entry goes: an open directory, which later look-ups may close, and a name in it.
type place struct {
	dir  int
	base string
}

// again performs create at path, and once more after what was in the way has been removed. It tells whether that was a whiteout.
func (a *applier) again(path string, create func(at place) error) (at place, whiteout bool, err error) {
	parent, base := splitPath(path)
	for range 3 {
		if at.dir, err = a.t.dir(parent); err != nil {
			return at, whiteout, err
		}
		at.base = base
		if err = create(at); err != unix.EEXIST {
			return at, whiteout, err
		}
		a.replaced = true
		w, err := a.t.clear(at.dir, base)
		if err != nil {
			return at, whiteout, err
		}
		whiteout = whiteout || w
	}
	return at, whiteout, err
}

func (a *applier) putFile(hdr *tar.Header, r *entries, path string) error {
	fd := -1
	_, _, err := a.again(path, func(at place) (err error) {
		fd, err = unix.Openat(at.dir, at.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return sysErr("openat", err)
	}
	err = a.writeFile(fd, hdr, r)
	if err == nil {
		err = a.fileMeta(fd, hdr)
	}
	if cerr := unix.Close(fd); err == nil && cerr != unix.EINTR {
		err = sysErr("close", cerr)
	}
	return err
}

// writeFile copies the content. Zeros of an entry that says it is sparse become holes.
func (a *applier) writeFile(fd int, hdr *tar.Header, r *entries) error {
	sparse := isSparse(hdr)
	var off int64
	for off < hdr.Size {
		p, err := r.next(hdr.Size - off)
		if err != nil {
			return archiveError(err)
		}
		write := pwriteAll
		if sparse {
			write = pwriteData
		}
		if err := write(fd, p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	if sparse {
		return sysErr("ftruncate", unix.Ftruncate(fd, hdr.Size))
	}
	return nil
}

// pwriteData is pwriteAll without the blocks of zeros.
func pwriteData(fd int, p []byte, off int64) error {
	const block = 4096
	for len(p) > 0 {
		n := 0
		for n < len(p) && !allZero(p[n:min(n+block, len(p))]) {
			n = min(n+block, len(p))
		}
		if err := pwriteAll(fd, p[:n], off); err != nil {
			return err
		}
		hole := min(n+block, len(p))
		p, off = p[hole:], off+int64(hole)
	}
	return nil
}

func pwriteAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

var zeros [4096]byte

// allZero takes at most 4096 bytes.
func allZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// fileMeta gives an open file its owner, attributes, mode and times, in this order: a change of the owner takes mode bits and
// capabilities away.
func (a *applier) fileMeta(fd int, hdr *tar.Header) error {
	if err := a.chown(hdr, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	if a.mark.acls {
		if err := a.dropXattrs(fd); err != nil {
			return err
		}
	}
	if err := a.xattrs(hdr, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) }); err != nil {
		return err
	}
	mode := a.mode(hdr)
	if a.givenOwner(hdr) {
		mode &^= unix.S_ISUID | unix.S_ISGID // set when it is given away: they were the caller's until then, and for good if no name of it is left
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	at, mt := times(hdr)
	return futimens(fd, at, mt)
}

// mode is what chmod takes.
func (a *applier) mode(hdr *tar.Header) uint32 { return a.policy.mode(hdr) }

func (p Policy) mode(hdr *tar.Header) uint32 {
	m := uint32(hdr.Mode) & 0o7777
	if p.NoSetuid && hdr.Typeflag != tar.TypeDir {
		m &^= unix.S_ISUID | unix.S_ISGID
	}
	return m
}

func (a *applier) chown(hdr *tar.Header, chown func(uid, gid int) error) error {
	if !a.owners {
		if (hdr.Uid != 0 || hdr.Gid != 0) && (a.giver == nil || !a.giver.has(hdr.Uid, hdr.Gid)) {
			a.mark.Owners++
		}
		return nil
	}
	if hdr.Uid == 0 && hdr.Gid == 0 && !a.flat && !a.finished {
		return nil // made by root in a directory of root's
	}
	err := chown(hdr.Uid, hdr.Gid)
	if err == unix.EINVAL || err == unix.EPERM {
		return &Error{Op: "unpack", Entry: hdr.Name, Err: os.NewSyscallError("chown", err),
			Remedy: "the owner is not mapped here; unpack outside of the user namespace, or as an ordinary user, for whom all files are their own"}
	}
	return sysErr("chown", err)
}

func times(hdr *tar.Header) (atime, mtime unix.Timespec) {
	mtime = timespec(hdr.ModTime)
	atime = mtime
	if !hdr.AccessTime.IsZero() {
		atime = timespec(hdr.AccessTime)
	}
	return atime, mtime
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func (a *applier) putDir(hdr *tar.Header, path string) error {
	existed := false
	at, whiteout, err := a.again(path, func(at place) error {
		err := unix.Mkdirat(at.dir, at.base, 0o700)
		if err == unix.EEXIST {
			if st, serr := statAt(at.dir, at.base); serr == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				existed = true
				return nil
			}
		}
		return err
	})
	if err != nil {
		return sysErr("mkdirat", err)
	}
	if existed && a.t.enter != nil {
		if err := a.reopen(at, path); err != nil {
			return err
		}
	}
	// Where something else was in between, it did not exist.
	delete(a.implied, path)
	if !existed || a.flat {
		delete(a.metas, path)
	}
	if existed && a.owners && hdr.Uid == 0 && hdr.Gid == 0 { // an earlier entry may have given it to others
		if err := unix.Fchownat(at.dir, at.base, 0, 0, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return sysErr("fchownat", err)
		}
	}
	stale := existed && a.flat || !existed && a.mark.acls // it has attributes that this entry has not
	if !whiteout && !hasXattrs(hdr) && !stale {
		// No descriptor is needed: what has to be done now can be done by name, in a directory that nobody else writes to.
		if err := a.chown(hdr, func(uid, gid int) error { return unix.Fchownat(at.dir, at.base, uid, gid, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
			return err
		}
		return a.deferMeta(path, hdr, "")
	}
	fd, err := unix.Openat(at.dir, at.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return sysErr("openat", err)
	}
	defer unix.Close(fd)
	if stale {
		err = a.dropXattrs(fd)
	}
	if err == nil && whiteout && !a.flat {
		err = a.setOpaque(fd)
	}
	if err != nil {
		return err
	}
	return a.putDirMeta(fd, path, hdr)
}

// putDirMeta gives a directory what it gets at once.
func (a *applier) putDirMeta(fd int, path string, hdr *tar.Header) error {
	if err := a.chown(hdr, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	acl := ""
	err := a.xattrs(hdr, func(name string, value []byte) error {
		if name == xattrDefaultACL {
			if !fitsACL(string(value)) { // it would take away what an earlier entry gave
				return unix.EINVAL
			}
			acl = string(value)
			return nil
		}
		return unix.Fsetxattr(fd, name, value, 0)
	})
	if err != nil {
		return err
	}
	return a.deferMeta(path, hdr, acl)
}

func (a *applier) deferMeta(path string, hdr *tar.Header, acl string) error {
	a.metaCount++
	m := dirMeta{mode: a.mode(hdr), acl: acl, entry: a.metaCount}
	m.atime, m.mtime = times(hdr)
	if _, ok := a.metas[path]; !ok || acl != "" {
		if err := a.growMetas(len(path) + len(acl)); err != nil {
			return err
		}
	}
	if acl == "" {
		m.acl = a.metas[path].acl // of an earlier entry, as its other attributes are
	}
	a.metas[path] = m
	return nil
}

// growMetas makes room for one more. Where there are too many the directories so far are finished, unless they are given away then: nothing could be
// put into them any more. A layer that others leave no memory to is put aside instead.
func (a *applier) growMetas(size int) error {
	size += dirMetaBytes
	if a.giver != nil {
		size *= 2 // realPaths
	}
	full := a.giver == nil && a.metaBytes+size > maxMetaBytes
	err := a.notes.grow(size)
	if a.giver == nil && a.metaBytes > 0 && (full || err != nil && !errors.Is(err, errMemoryBusy)) {
		if ferr := a.finishDirs(); ferr != nil {
			return ferr
		}
		if err != nil {
			err = a.notes.grow(size)
		}
	}
	if err == nil {
		a.metaBytes += size
	}
	return err
}

// enter opens a directory to its owner that was closed when it was finished. It is closed again with the others.
func (a *applier) enter(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return sysErr("fstat", err)
	}
	if st.Mode&0o700 == 0o700 || st.Uid != uint32(os.Geteuid()) {
		return nil
	}
	if err := unix.Chmod(handlePath(fd), 0o700); err != nil {
		return sysErr("chmod", err)
	}
	root, err := linkOf(a.t.root)
	if err != nil {
		return err
	}
	path = nameBelow(root, fd, path)
	if _, ok := a.metas[path]; ok {
		return nil
	}
	size := len(path) + dirMetaBytes
	if err := a.notes.grow(size); err != nil {
		return err
	}
	a.metaBytes += size
	as := unix.Timespec{Nsec: unix.UTIME_OMIT}
	a.metas[path] = dirMeta{mode: st.Mode & 0o7777, atime: as, mtime: as, entry: a.metaCount}
	return nil
}

// reopen is enter for a directory that has an entry of its own now: who may write may set attributes, and what the entry says holds.
func (a *applier) reopen(at place, path string) error {
	if err := unix.Fchmodat(at.dir, at.base, 0o700, 0); err != nil {
		return sysErr("fchmodat", err)
	}
	root, err := linkOf(a.t.root)
	if err != nil {
		return err
	}
	parent, _ := splitPath(path)
	if real := join(nameBelow(root, at.dir, parent), at.base); real != path {
		delete(a.metas, real)
	}
	return nil
}

// finishDirs gives directories their mode and times, the deepest first, since a parent's mode may close the way.
func (a *applier) finishDirs() error {
	if err := a.realPaths(); err != nil {
		return err
	}
	paths := make([]string, 0, len(a.metas))
	for p := range a.metas {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, func(x, y string) int { return strings.Compare(y, x) })
	for _, p := range paths {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		if err := a.finishDir(p, a.metas[p]); err != nil {
			return &Error{Op: "unpack", Entry: p, Err: err}
		}
	}
	clear(a.metas)
	a.notes.shrink(a.metaBytes)
	a.metaBytes, a.finished = 0, true
	if !a.owners { // later entries may go into them
		a.t.forget()
		a.t.enter = a.enter
	}
	return nil
}

func (a *applier) finishDir(path string, m dirMeta) error {
	fd, err := a.t.root, error(nil)
	if path != "" {
		fd, err = a.t.resolve(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		switch err {
		case nil:
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
			return nil // a later entry took its place
		default:
			return sysErr("openat2", err)
		}
		defer unix.Close(fd)
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if m.acl != "" {
		if err := a.notedXattr(xattrDefaultACL, m.acl, unix.Fsetxattr(fd, xattrDefaultACL, []byte(m.acl), 0)); err != nil {
			return err
		}
		a.mark.acls = true
	}
	if err := futimens(fd, m.atime, m.mtime); err != nil {
		return err
	}
	return a.giveDir(fd)
}

func (a *applier) putSymlink(hdr *tar.Header, path string) error {
	at, _, err := a.again(path, func(at place) error { return unix.Symlinkat(hdr.Linkname, at.dir, at.base) })
	if err != nil {
		return sysErr("symlinkat", err)
	}
	return a.nodeMeta(hdr, at)
}

// nodeMeta gives what cannot be opened its owner, attributes and times.
func (a *applier) nodeMeta(hdr *tar.Header, at place) error {
	if err := a.chown(hdr, func(uid, gid int) error { return unix.Fchownat(at.dir, at.base, uid, gid, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if a.mark.acls {
			if err := dropACLAt(at); err != nil {
				return err
			}
		}
		if err := unix.Fchmodat(at.dir, at.base, a.mode(hdr), 0); err != nil { // no link: it was made just now, where nobody else writes
			return sysErr("fchmodat", err)
		}
	}
	if err := a.xattrs(hdr, func(name string, value []byte) error { return setxattrAt(at, name, value) }); err != nil {
		return err
	}
	atime, mtime := times(hdr)
	return sysErr("utimensat", unix.UtimesNanoAt(at.dir, at.base, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW))
}

// putLink implements form.
func (a *applier) putLink(hdr *tar.Header, path, target string) error {
	tdir, tbase := splitPath(target)
	tfd, err := a.t.lookup(tdir)
	if err != nil {
		return badLink(a.ctx, hdr, err)
	}
	st, err := statAt(tfd, tbase)
	switch {
	case err != nil:
		return badLink(a.ctx, hdr, err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR || isWhiteout(st):
		return because(ErrBadLink, "to %q, which is no file of this layer", clip(hdr.Linkname))
	}
	_, _, err = a.again(path, func(at place) error {
		tfd, err := a.t.lookup(tdir) // once more: what was in the way may have led to it
		if err != nil {
			return err
		}
		if now, serr := statAt(at.dir, at.base); serr == nil && now.Dev == st.Dev && now.Ino == st.Ino {
			return nil // the same file already
		}
		return unix.Linkat(tfd, tbase, at.dir, at.base, 0)
	})
	if err != nil {
		return badLink(a.ctx, hdr, err)
	}
	return nil
}

// badLink says that a hard link cannot be made, unless that is because nobody waits for it any more.
func badLink(ctx context.Context, hdr *tar.Header, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return because(ErrBadLink, "to %q: %v", clip(hdr.Linkname), err)
}

// putNode implements form.
func (a *applier) putNode(hdr *tar.Header, path string) error {
	kind, dev := nodeKind(hdr), 0
	if kind != unix.S_IFIFO {
		dev = int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
	}
	at, _, err := a.again(path, func(at place) error { return unix.Mknodat(at.dir, at.base, kind|0o600, dev) })
	if err == unix.EPERM && kind != unix.S_IFIFO {
		a.mark.Devices++
		return nil
	}
	if err != nil {
		return os.NewSyscallError("mknodat", err)
	}
	return a.nodeMeta(hdr, at)
}

// nodeKind is the type of a device or a FIFO, as a mode has it.
func nodeKind(hdr *tar.Header) uint32 {
	switch hdr.Typeflag {
	case tar.TypeChar:
		return unix.S_IFCHR
	case tar.TypeBlock:
		return unix.S_IFBLK
	}
	return unix.S_IFIFO
}

// finish completes the layer.
func (a *applier) finish() error {
	if err := errors.Join(a.inheritDirs(), a.listImplied(), a.giveFiles()); err != nil {
		return err
	}
	return a.finishDirs()
}
