package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

func TestFS(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		for _, d := range []string{"etc", "usr", "usr/lib"} {
			mkdir(t, filepath.Join(r.Name(), d))
		}
		write("root")(t, filepath.Join(r.Name(), "etc/passwd"))
		write("")(t, filepath.Join(r.Name(), "usr/lib/empty"))
		symlink(t, "/usr/lib", filepath.Join(r.Name(), "lib"))
		symlink(t, "/etc/passwd", filepath.Join(r.Name(), "usr/lib/abs"))
		if err := fstest.TestFS(r.FS(), "etc/passwd", "usr/lib/empty", "usr/lib/abs"); err != nil {
			t.Error(err)
		}
		data, err := fs.ReadFile(r.FS(), "lib/abs")
		if err != nil || string(data) != "root" {
			t.Errorf("got %q, %v", data, err)
		}
		if text, err := fs.ReadLink(r.FS(), "lib"); err != nil || text != "/usr/lib" {
			t.Errorf("got %q, %v", text, err)
		}
		for _, name := range []string{"/etc/passwd", "../etc/passwd", "", "etc/", "etc/../etc/passwd"} {
			if _, err := r.FS().Open(name); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q: got %v", name, err)
			}
		}
	})
}

func TestFSHostile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	write("secret")(t, secret)
	eachWay(t, func(t *testing.T, r *Root) {
		symlink(t, secret, filepath.Join(r.Name(), "link"))
		mkfifo(t, filepath.Join(r.Name(), "fifo"))
		sparse(maxFSFile+1)(t, filepath.Join(r.Name(), "huge"))
		for name, want := range map[string]error{"link": os.ErrNotExist, "fifo": ErrNotRegular, "huge": ErrTooLarge} {
			_, err := fs.ReadFile(r.FS(), name)
			var pe *fs.PathError
			if !errors.Is(err, want) || !errors.As(err, &pe) || pe.Path != name {
				t.Errorf("%s: got %v, want %v", name, err, want)
			}
		}
		seen := 0
		err := fs.WalkDir(r.FS(), ".", func(string, fs.DirEntry, error) error { seen++; return nil })
		if err != nil || seen != 4 {
			t.Errorf("walk saw %d, %v", seen, err)
		}
	})
}
