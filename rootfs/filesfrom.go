package rootfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strconv"
)

// MaxFiles is how many files [FilesFrom] takes.
const MaxFiles = 10000

// FilesFrom returns the files, directories and symbolic links of fsys, to be put below the directory dir of
// a container (see Layout.Files). The contents are read now, into memory (memfd_create(2)), and copied by the
// kernel at the start; release frees them, when the container has started.
//
// Permission bits are those of fsys. Owner is the container's root user. Other kinds of files are refused, and
// more than [MaxFiles].
func FilesFrom(ctx context.Context, fsys fs.FS, dir string) (files []File, release func() error, err error) {
	content, err := newContent()
	if err != nil {
		return nil, nil, err
	}
	end := int64(0)
	err = fs.WalkDir(fsys, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		if len(files) == MaxFiles {
			return errors.New("more than " + strconv.Itoa(MaxFiles) + " files")
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		f := File{Path: path.Join(dir, name), Mode: fi.Mode().Perm()}
		switch fi.Mode().Type() {
		case fs.ModeDir:
			f.Dir = true
		case fs.ModeSymlink:
			if f.Link, err = fs.ReadLink(fsys, name); err != nil {
				return err
			}
		case 0:
			n, err := appendFile(content, fsys, name)
			if err != nil {
				return err
			}
			f.Content, f.Offset, f.Size = content, end, n
			end += n
		default:
			return errors.New(name + " is neither file, directory nor symbolic link")
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, nil, &Error{Op: "read files for", Object: dir, Err: errors.Join(err, content.Close())}
	}
	return files, content.Close, nil
}

func appendFile(to io.Writer, fsys fs.FS, name string) (int64, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(to, f)
}
