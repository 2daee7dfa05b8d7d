package rootfs

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// The root filesystem is hostile: any component of a path in it may be a symbolic link. A target that is a
// single name is attached to without following it. Every other one is resolved by openat2 with these flags,
// or, without openat2, name by name with links refused.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// open opens name below the root with O_PATH. Where missing is not 0, the program goes on there when a
// component does not exist, or with one of errnos.
func (p *Plan) open(b *program.Builder, name string, flags uint64, missing program.Label, errnos ...syscall.Errno) program.OpRef {
	if p.env.Features.Openat2 {
		o := b.Openat2(p.at, name, flags|unix.O_PATH, 0, inRoot)
		return orMissing(o, missing, errnos)
	}
	at := p.at
	dir, rest, more := strings.Cut(name, "/")
	for more {
		o := orMissing(b.Openat(at, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0), missing, errnos)
		at = o.Result()
		dir, rest, more = strings.Cut(rest, "/")
	}
	return orMissing(b.Openat(at, dir, int(flags)|unix.O_PATH|unix.O_NOFOLLOW, 0), missing, errnos)
}

// OpenDir emits the opening of a directory in the finished root. The links of /proc are not followed; without openat2
// no symbolic links are.
func (p *Plan) OpenDir(b *program.Builder, dir string) program.Arg {
	return p.open(b, cmp.Or(rel(dir), "."), unix.O_DIRECTORY, 0).Result()
}

// OpenPath emits the opening with O_PATH of whatever is at a path in the finished root, as OpenDir does it. Where missing is
// not 0, the program goes on there when nothing is at the path.
func (p *Plan) OpenPath(b *program.Builder, name string, missing program.Label) program.OpRef {
	return p.open(b, cmp.Or(rel(name), "."), 0, missing, unix.ENOTDIR)
}

func orMissing(o program.OpRef, missing program.Label, errnos []syscall.Errno) program.OpRef {
	if missing != 0 {
		if !slices.Contains(errnos, unix.ENOENT) {
			errnos = append(errnos, unix.ENOENT)
		}
		return o.IgnoreTo(missing, errnos...)
	}
	return o
}

// makeDirs opens the directory name, which may be "." or "", and makes what is missing of it. The argument
// that stands for it is valid until the next call.
func (p *Plan) makeDirs(b *program.Builder, name string) program.Arg {
	if name == "" || name == "." {
		return p.at
	}
	make, have := b.NewLabel(), b.NewLabel()
	b.Copy(p.open(b, name, unix.O_DIRECTORY, make), p.parent)
	b.JumpBelow(p.zero, program.Int(1), have)
	b.Mark(make)
	at := p.at
	var last program.OpRef
	for i := 0; i < len(name); {
		end := len(name)
		if n := strings.IndexByte(name[i:], '/'); n >= 0 {
			end = i + n
		}
		b.Mkdirat(at, name[i:end], 0o755).Ignore(unix.EEXIST)
		last = p.open(b, name[:end], unix.O_DIRECTORY, 0)
		at = last.Result()
		i = end + 1
	}
	b.Copy(last, p.parent)
	b.Mark(have)
	return p.parent.Value()
}

// target opens what a mount is attached to, and makes it, a directory or an empty file, where it is missing.
func (p *Plan) target(b *program.Builder, name string, isDir bool) program.Arg {
	if isDir {
		return p.makeDirs(b, name)
	}
	make, have := b.NewLabel(), b.NewLabel()
	b.Copy(p.open(b, name, 0, make), p.parent)
	b.JumpBelow(p.zero, program.Int(1), have)
	b.Mark(make)
	dir := p.makeDirs(b, path.Dir(name))
	b.Mknodat(dir, path.Base(name), unix.S_IFREG|0o644, 0, 0).Ignore(unix.EEXIST)
	b.Copy(p.open(b, name, 0, 0), p.parent)
	b.Mark(have)
	return p.parent.Value()
}
