package netns

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
)

func TestSmallFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if _, err := readFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, n := range []int{0, 1, 1023, 1024, 1025, 100_000, 3} {
		data := bytes.Repeat([]byte{'x'}, n)
		if err := writeFile(path, data); err != nil {
			t.Fatal(err)
		}
		if b, err := readFile(path); err != nil || !bytes.Equal(b, data) {
			t.Errorf("%d bytes: %d read, %v", n, len(b), err)
		}
	}
	if err := writeFile(filepath.Join(path, "below"), nil); err == nil {
		t.Error("a file was made below a file")
	}
	if err := rename(path, filepath.Join(path, "below")); err == nil {
		t.Error("renamed below a file")
	}
}
