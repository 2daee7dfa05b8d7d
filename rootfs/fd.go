package rootfs

import (
	"context"
	"io/fs"
	"os"
	"strconv"
)

// FDSource is an open directory as root filesystem. Make it with [FD].
type FDSource struct {
	file *os.File
	dir  DirSource
}

// FD is the root filesystem in an open directory; O_PATH is enough. It is used like [Dir], which says how
// ReadOnly, Writable and UpperSize change that. The caller keeps dir open until the container is started, and
// closes it.
//
// A caller without privilege cannot hand a directory into a new mount namespace by descriptor: its path is
// looked up once more then, and refused if it leads to another directory.
func FD(dir *os.File) FDSource { return FDSource{file: dir} }

// ReadOnly is as for [DirSource.ReadOnly].
func (s FDSource) ReadOnly() FDSource { s.dir = s.dir.ReadOnly(); return s }

// Writable is as for [DirSource.Writable].
func (s FDSource) Writable() FDSource { s.dir = s.dir.Writable(); return s }

// UpperSize is as for [DirSource.UpperSize].
func (s FDSource) UpperSize(bytes int64) FDSource { s.dir = s.dir.UpperSize(bytes); return s }

// Describe implements [Source].
func (s FDSource) Describe(ctx context.Context, env Env) (*Description, error) {
	if s.file == nil {
		return nil, invalid("open root filesystem", "", "no open file given")
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(s.file.Fd()))
	want, err := s.file.Stat()
	if err != nil {
		return nil, &Error{Op: "open root filesystem", Object: s.file.Name(), Err: underlying(err)}
	}
	if env.Unprivileged {
		if path, err = os.Readlink(path); err != nil {
			return nil, &Error{Op: "find path of", Object: s.file.Name(), Err: underlying(err)}
		}
	}
	d := s.dir
	d.path = path
	desc, err := d.Describe(ctx, env)
	if err != nil {
		return nil, err
	}
	if have, err := os.Stat(path); err != nil || !os.SameFile(want, have) {
		return nil, &Error{Op: "open root filesystem", Object: path, Err: fs.ErrNotExist, Remedy: "the directory was moved or removed since it was opened"}
	}
	if !env.Unprivileged {
		desc.Layers[0].Path, desc.Layers[0].File = "", s.file
	}
	return desc, nil
}
