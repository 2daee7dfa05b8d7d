package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// thread runs f on a thread of its own with its own mounts.
func thread(t *testing.T, f func() error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	mounts := hostMounts(t)
	done := make(chan error)
	go func() { done <- onThread(f) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
	sameMounts(t, mounts)
}

// escape is the classic way out of a chroot: make another one and walk up from a directory outside of it.
func escape() error {
	if err := os.Mkdir("/tmp/inner", 0o755); err != nil {
		return err
	}
	if err := unix.Chroot("/tmp/inner"); err != nil {
		return err
	}
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	return unix.Chroot(".")
}

func TestPivotHoldsAndChrootDoesNot(t *testing.T) {
	for name, change := range map[string]func(string) error{"pivot": Pivot, "chroot": Chroot} {
		t.Run(name, func(t *testing.T) {
			dir := makeTestRoot(t)
			thread(t, func() error {
				if err := change(filepath.Join(dir, "root")); err != nil {
					return err
				}
				if b, err := os.ReadFile("/etc/lower"); err != nil || string(b) != "lower" {
					return fmt.Errorf("%q, %w", b, err)
				}
				if err := unix.Chdir("/"); err != nil {
					return err
				}
				if err := escape(); err != nil {
					return err
				}
				_, err := os.Lstat(dir)
				if escaped := err == nil; escaped != (name == "chroot") {
					return fmt.Errorf("escaped: %v", escaped)
				}
				return nil
			})
		})
	}
}

func TestAttach(t *testing.T) {
	dir := makeTestRoot(t)
	thread(t, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		root, err := os.Open(filepath.Join(dir, "root"))
		if err != nil {
			return err
		}
		defer root.Close()
		before := openFiles()
		vol := filepath.Join(dir, "vol")
		env := Env{Features: Probe()}
		if err := Attach(root, env, ReadOnlyBindMount(vol, "/abs/vol"), TmpfsMount("/tmp", 1<<20)); err != nil {
			return err
		}
		if after := openFiles(); before != after {
			return fmt.Errorf("%d files open before, %d after", before, after)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "root/etc/vol/hello")); err != nil || string(b) != "volume" {
			return fmt.Errorf("%q, %w", b, err)
		}
		if err := Attach(root, env, BindMount(vol, "/escape/x")); !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("followed a link out of the root: %w", err) // inside, there is no /proc/self
		}
		return nil
	})
	if _, err := os.Lstat("/etc/vol"); err == nil {
		t.Error("made a directory outside of the root")
	}
}
