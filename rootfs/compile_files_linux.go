package rootfs

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// writeFiles puts files into the container. What has the name of a file is removed first: it could be a link,
// or a pipe on which opening would wait.
func (p *Plan) writeFiles(b *program.Builder) {
	for i := range p.layout.Files {
		f := &p.layout.Files[i]
		name := rel(f.Path)
		b.Step("write file", f.Path)
		dir := p.makeDirs(b, path.Dir(name))
		base := path.Base(name)
		switch {
		case f.Dir:
			b.Mkdirat(dir, base, modeBits(f.Mode)).Ignore(unix.EEXIST)
			p.own1(b, f, dir, base)
		case f.Link != "":
			unlink(b, dir, base)
			b.Symlinkat(f.Link, dir, base)
			p.own1(b, f, dir, base)
		default:
			unlink(b, dir, base)
			p.writeFile(b, i, f, dir, base)
		}
		if path.Dir(name) != "." {
			b.Close(p.parent.Value())
		}
	}
}

func (p *Plan) own1(b *program.Builder, f *File, dir program.Arg, base string) {
	if f.UID != 0 || f.GID != 0 {
		chown(b, dir, base, f.UID, f.GID)
	}
}

func unlink(b *program.Builder, dir program.Arg, base string) {
	b.Call(unix.SYS_UNLINKAT, "unlinkat", dir, program.Str(base), program.Int(0)).Ignore(unix.ENOENT)
}

func (p *Plan) writeFile(b *program.Builder, i int, f *File, dir program.Arg, base string) {
	mode := modeBits(f.Mode)
	fd := b.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode).Result()
	size := f.Size
	if f.Content == nil {
		size = int64(len(f.Data))
	}
	if size > 4096 {
		// A write that meets a full filesystem is short and not an error; reserving the space is.
		b.Call(unix.SYS_FALLOCATE, "fallocate", fd, program.Int(0), program.Int(0), program.Int(size)).Ignore(unix.EOPNOTSUPP)
	}
	switch {
	case f.Content != nil:
		p.copyContent(b, i, f, fd)
	case size > 0:
		b.Write(fd, string(f.Data))
	}
	if f.UID != 0 || f.GID != 0 {
		chown(b, dir, base, f.UID, f.GID)
		b.Call(unix.SYS_FCHMOD, "fchmod", fd, program.Octal(mode))
	}
	b.Close(fd)
}

// copyContent lets the kernel copy; a call moves at most 2 GiB.
func (p *Plan) copyContent(b *program.Builder, i int, f *File, fd program.Arg) {
	from := p.input(b, "content "+num(i), f.Content)
	offset := b.Words(uint64(f.Offset))
	const most = 1 << 30
	for left := f.Size; left > 0; left -= most {
		b.Call(unix.SYS_SENDFILE, "sendfile", fd, from, offset.Addr(), program.Int(min(left, most)))
	}
}
