package image

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Files with holes, in each of the formats that GNU tar writes, are unpacked with holes and the same bytes.
func TestSparseFormats(t *testing.T) {
	const size = 8 << 20
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1 << 20, 5<<20 + 12345} {
		if _, err := f.WriteAt([]byte("some text"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	want, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"old GNU": {"--format=gnu"},
		"PAX 0.0": {"--format=posix", "--sparse-version=0.0"},
		"PAX 0.1": {"--format=posix", "--sparse-version=0.1"},
		"PAX 1.0": {"--format=posix", "--sparse-version=1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := exec.Command("tar", append(args, "--sparse", "--hole-detection=raw", "--owner=0", "--group=0", "-C", dir, "-cf", "-", "sparse")...)
			cmd.Stderr = &stderr
			archive, err := cmd.Output()
			if err != nil || len(archive) > 1<<20 {
				t.Fatalf("%d bytes, %v: %s", len(archive), err, stderr.Bytes())
			}
			s := openStore(t, Options{})
			putImage(t, s, "a", plain(archive))
			u := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{}))
			got, err := os.ReadFile(u.Dirs[0] + "/sparse")
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			var st unix.Stat_t
			if err := unix.Stat(u.Dirs[0]+"/sparse", &st); err != nil || st.Blocks*512 > size/4 {
				t.Errorf("it takes %d bytes, %v", st.Blocks*512, err)
			}
			files := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{EROFS: true}))
			sameTree(t, "EROFS", treeOfDir(t, u.Dirs[0]), treeOfBlob(t, files.Blobs[0]), nil)
			// What an image is made of has all bytes: others read it as well.
			if _, err := s.Write(context.Background(), "b", ImageSpec{Layers: []Layer{DirLayer(Tree{Path: u.Dirs[0]}, TreeOptions{})}}); err != nil {
				t.Fatal(err)
			}
			b := must[*Unpacked](t)(s.Unpack(context.Background(), "b", UnpackOptions{}))
			if got, err := os.ReadFile(b.Dirs[0] + "/sparse"); err != nil || !bytes.Equal(got, want) {
				t.Errorf("written and read: %d bytes, %v", len(got), err)
			}
		})
	}
}
