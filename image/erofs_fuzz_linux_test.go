package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/erofs"
)

// Whatever a layer is, as a file of EROFS it is what it is as a directory, if it is one at all.
func FuzzErofs(f *testing.F) {
	for _, s := range seedLayers(f) {
		f.Add(s)
	}
	f.Add(erofsLayers(f)[1].plain) // the first one is too large to be changed in useful ways
	base, err := os.MkdirTemp("", "caisson-fuzz-")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { removeTree(base) })
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		defer removeTree(dir)
		limits := Limits{Bytes: 4 << 20, Entries: 300, Memory: 32 << 20}.withDefaults()
		blob, err := os.Create(filepath.Join(dir, fileBlob))
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		m, w := &mark{}, erofs.NewWriter(blob)
		tree := newBlobTree(context.Background(), w, Policy{}, &budget{limits: limits}, nil, m, nil)
		if err = tree.apply(&lender{data: data}); err == nil {
			_, _, err = w.Finish(context.Background(), tree.root)
		}
		path := filepath.Join(dir, dirTree)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		dm := &mark{}
		derr := writeTree(context.Background(), path, &lender{data: data}, Policy{}, &budget{limits: limits}, dm, treeOptions{})
		if err != nil || derr != nil {
			for _, kind := range []error{ErrTraversal, ErrRootReplaced, ErrBadName, ErrBadWhiteout, ErrDevice, ErrArchive} {
				if errors.Is(err, kind) != errors.Is(derr, kind) {
					t.Errorf("%v\nas a directory: %v", err, derr)
				}
			}
			if derr == nil && !errors.Is(err, ErrBadHeader) {
				t.Errorf("as a file only: %v", err)
			}
			if err == nil && os.Geteuid() == 0 && !ofFileSystem(derr) {
				t.Errorf("as a directory only: %v", derr)
			}
			return
		}
		if os.Geteuid() != 0 || m.Xattrs != dm.Xattrs {
			checkTree(t, path)
			return
		}
		want := treeOfDir(t, path)
		var untimed []string // directories that were made for want of an entry have the time of now
		for p, shown := range want {
			if strings.HasPrefix(shown, "4") {
				untimed = append(untimed, p)
			}
		}
		sameTree(t, "", want, treeOfBlob(t, blob.Name()), untimed)
	})
}

// ofFileSystem says that a file system has no room for what EROFS has: extended attributes, whose sizes and names each bounds for itself.
func ofFileSystem(err error) bool {
	return errors.Is(err, ErrBadHeader) && strings.Contains(err.Error(), "extended attribute") || errors.Is(err, unix.ENOSPC)
}
