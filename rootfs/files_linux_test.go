package rootfs

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func filesToPut() fstest.MapFS {
	return fstest.MapFS{
		"a/one": {Data: []byte("one"), Mode: 0o755}, "a/empty": {Mode: 0o644}, "a/b/large": {Data: bytes.Repeat([]byte("x"), 300000), Mode: 0o600},
		"a/link": {Data: []byte("one"), Mode: fs.ModeSymlink | 0o777}, "dir": {Mode: fs.ModeDir | 0o711},
	}
}

func init() {
	put := func(size int64) scenario {
		return scenario{
			source: func(d string) Source { return rootDir(d).UpperSize(size) },
			change: func(_ string, l *Layout) {
				files, _, err := FilesFrom(context.Background(), filesToPut(), "/srv/in")
				if err != nil {
					panic(err)
				}
				l.Files = files
			},
		}
	}
	s := put(0)
	s.check = func(c *checker) {
		common(c)
		c.content("/srv/in/a/link", "one")
		c.content("/srv/in/a/empty", "")
		if b, err := os.ReadFile("/srv/in/a/b/large"); err != nil || !bytes.Equal(b, bytes.Repeat([]byte("x"), 300000)) {
			c.bad("%d bytes, %v", len(b), err)
		}
		if fi, err := os.Stat("/srv/in/dir"); err != nil || fi.Mode().Perm() != 0o711 {
			c.bad("%v %v", fi, err)
		}
		if fi, err := os.Stat("/srv/in/a/one"); err != nil || fi.Mode().Perm() != 0o755 {
			c.bad("%v %v", fi, err)
		}
	}
	scenarios["files"] = s
	s = put(MinUpperSize)
	s.wants = unix.ENOSPC
	scenarios["files-full"] = s
}

func TestFilesFrom(t *testing.T) {
	before := openFiles()
	files, release, err := FilesFrom(context.Background(), filesToPut(), "/x")
	if err != nil || len(files) != 7 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := FilesFrom(ctx, filesToPut(), "/x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if after := openFiles(); before != after {
		t.Errorf("%d files open before, %d after", before, after)
	}
}
