package linux

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, n := range []int{0, 1, 4095, 4096, 4097, 8192, 100_000} {
		want := bytes.Repeat([]byte("ab"), n)[:n]
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadFile(path); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%d of %d bytes, %v", len(b), n, err)
		}
	}
	var pe *os.PathError
	if _, err := ReadFile(path + "no"); !errors.Is(err, os.ErrNotExist) || !errors.As(err, &pe) || pe.Path != path+"no" {
		t.Errorf("of none: %v", err)
	}
	if _, err := ReadFile(t.TempDir()); !errors.Is(err, unix.EISDIR) {
		t.Errorf("of a directory: %v", err)
	}
	want, err := os.ReadFile("/proc/sys/kernel/ostype")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile("/proc/sys/kernel/ostype"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%q, %v", b, err)
	}
}
