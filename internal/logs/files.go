package logs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// newSuffix is that of a file that is about to become the current one.
const newSuffix = ".new"

// generation is a file that is not written any more.
type generation struct {
	n    uint64
	name string
}

// generations lists the files before the current one, the oldest first.
func generations(path string) ([]generation, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []generation
	for _, name := range names {
		suffix, ok := strings.CutPrefix(name, filepath.Base(path)+".")
		if !ok || suffix == "" || suffix[0] == '0' {
			continue
		}
		if n, err := strconv.ParseUint(suffix, 10, 63); err == nil {
			out = append(out, generation{n, filepath.Join(filepath.Dir(path), name)})
		}
	}
	slices.SortFunc(out, func(a, b generation) int {
		if a.n < b.n {
			return -1
		}
		return 1
	})
	return out, nil
}

// ErrNotRegular: what stands where a log is to be is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// openFile opens a file of a log: nothing else, and nothing that a link leads to.
func openFile(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, flags|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isCurrent reports whether the name still stands for the file.
func isCurrent(f *os.File, name string) bool {
	here, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(name)
	return err == nil && os.SameFile(here, there)
}
