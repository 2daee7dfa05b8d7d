package erofs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a tree with every kind of file, and the contents of those that have some.
func sample() (*Node, map[*Node]string) {
	text := map[*Node]string{}
	reg := func(s string) *Node {
		n := &Node{Mode: typeRegular | 0o644, Sec: 1_600_000_000, Nsec: 123_456_789}
		text[n] = s
		return n
	}
	directory := func(c map[string]*Node) *Node { return &Node{Mode: typeDir | 0o755, Children: c, Sec: 1} }
	caps := reg("binary")
	caps.Mode, caps.UID, caps.GID = typeRegular|0o4755, 1000, math.MaxUint32-1
	many := map[string]*Node{}
	for i := range 1000 {
		many[fmt.Sprintf("%s-%d", strings.Repeat("n", i%200), i)] = reg(strings.Repeat("x", i))
	}
	links := map[string]*Node{}
	for i := range 200 {
		links[fmt.Sprint(i)] = &Node{Mode: typeLink | 0o777, Target: strings.Repeat("t", 1+i*20), Sec: -5, Nsec: 7}
	}
	hard := reg("two names")
	whiteout := &Node{Mode: typeChar}
	opaque := directory(nil)
	for _, a := range [][2]string{{"trusted.overlay.opaque", "y"}, {"user.overlay.opaque", "y"}} {
		if err := opaque.SetXattr(a[0], a[1]); err != nil {
			panic(err)
		}
	}
	for name, value := range map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"user.long": strings.Repeat("v", 5000), "user.empty": "", "trusted.t": "\x00\xff",
		"system.posix_acl_access": "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"} {
		if err := caps.SetXattr(name, value); err != nil {
			panic(err)
		}
	}
	return directory(map[string]*Node{
		"empty": reg(""), "block": reg(strings.Repeat("b", blockSize)), "big": reg(strings.Repeat("0123456789abcdef", 1<<16)), "zeros": reg(strings.Repeat("\x00", 1<<20)),
		"caps": caps, "many": directory(many), "links": directory(links), "opaque": opaque, ".wh": whiteout, "hard": hard, "!": reg("before the dot"),
		"sub":  directory(map[string]*Node{"hard": hard, "deep": directory(map[string]*Node{"er": directory(nil)})}),
		"null": {Mode: typeChar | 0o666, Major: 1, Minor: 3}, "disk": {Mode: typeBlock | 0o660, Major: 259, Minor: 70000}, "pipe": {Mode: typeFIFO | 0o600}, "sock": {Mode: typeSocket | 0o600},
	}), text
}

// write makes a file of a tree.
func write(t testing.TB, root *Node, text map[*Node]string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := NewWriter(f)
	for n, s := range text {
		if err := w.Data(n, strings.NewReader(s), int64(len(s))); err != nil {
			t.Fatal(err)
		}
	}
	sum, size, err := w.Finish(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Sum(f, size); err != nil || again != sum {
		t.Fatalf("sum %x, read %x, %v", sum, again, err)
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != size {
		t.Fatalf("size %d, file %v, %v", size, fi.Size(), err)
	}
	return f
}

func TestRoundTrip(t *testing.T) {
	root, text := sample()
	f := write(t, root, text)
	fi, _ := f.Stat()
	r, err := Open(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = r.Walk(func(path string, f *File) error {
		seen++
		n := root
		for name := range strings.SplitSeq(path, "/") {
			if name != "" {
				n = n.Children[name]
			}
		}
		if n == nil {
			t.Errorf("%s is not in the tree", path)
			return nil
		}
		if f.Mode != n.Mode || f.UID != n.UID || f.GID != n.GID || f.Sec != n.Sec || f.Nsec != n.Nsec || f.Target != n.Target || f.Major != n.Major || f.Minor != n.Minor || f.Links != n.nlink || len(f.Xattrs) != len(n.Xattrs) {
			t.Errorf("%s: %+v, want %+v", path, f, n)
		}
		for k, v := range n.Xattrs {
			if f.Xattrs[k] != v {
				t.Errorf("%s: %s is %q", path, k, f.Xattrs[k])
			}
		}
		if s, ok := text[n]; ok {
			if got, err := io.ReadAll(r.Contents(f)); err != nil || string(got) != s {
				t.Errorf("%s: %d bytes, want %d, %v", path, len(got), len(s), err)
			}
		}
		found, _, err := r.Lookup(path)
		if err != nil || found.Number != f.Number {
			t.Errorf("lookup of %s: %v, %v", path, found, err)
		}
		return nil
	})
	if err != nil || seen != 1+16+1000+200+3 {
		t.Errorf("%d names, %v", seen, err)
	}
}

// countReads counts what is read of a file.
type countReads struct {
	io.ReaderAt
	total int
}

func (c *countReads) ReadAt(p []byte, off int64) (int, error) {
	c.total += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

// TestLookup looks names up in directories of many blocks: none is read whole, and what is not there is not found.
func TestLookup(t *testing.T) {
	file := &Node{Mode: typeRegular}
	root := &Node{Mode: typeDir, Children: map[string]*Node{}}
	for i := range 5000 {
		root.Children[fmt.Sprintf("%s%d", strings.Repeat("!", i%7), i)] = file // before "." and behind ".."
	}
	root.Children["dir"] = &Node{Mode: typeDir}
	f := write(t, root, nil)
	fi, _ := f.Stat()
	r, err := Open(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range root.Children {
		if found, depth, err := r.Lookup(name); err != nil || depth != 1 || found.Mode != n.Mode {
			t.Fatalf("%q: %+v, %v", name, found, err)
		}
		if found, _, err := r.Lookup(name + "~"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%q~: %+v, %v", name, found, err)
		}
	}
	for _, name := range []string{" ", "~", ".", "..", "dir/x", "dir/."} {
		if found, _, err := r.Lookup(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %+v, %v", name, found, err)
		}
	}
	count := &countReads{ReaderAt: f}
	r.r = count
	if _, _, err := r.Lookup("4998"); err != nil || count.total > 12*blockSize {
		t.Errorf("%d bytes read, %v", count.total, err)
	}
}

// TestFsck asks the tools of the format's authors.
func TestFsck(t *testing.T) {
	if _, err := exec.LookPath("fsck.erofs"); err != nil {
		t.Skip("no fsck.erofs on this machine: install the package erofs-utils")
	}
	root, text := sample()
	blob := write(t, root, text)
	if out, err := exec.Command("fsck.erofs", "--extract", blob.Name()).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	fi, err := blob.Stat()
	if err == nil {
		_, err = blob.WriteAt([]byte{0xff, 0xff, 0xff}, fi.Size()-blockSize+3) // the number of an inode
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("fsck.erofs", blob.Name()).Run(); err == nil {
		t.Error("a damaged file is taken for whole")
	}
}

// TestFormat has files that are not what they should be.
func TestFormat(t *testing.T) {
	root := &Node{Mode: typeDir | 0o755, Children: map[string]*Node{"x": {Mode: typeLink, Target: "y"}}}
	good := write(t, root, nil)
	data, err := os.ReadFile(good.Name())
	if err != nil {
		t.Fatal(err)
	}
	for at := range len(data) {
		b := bytes.Clone(data)
		b[at] ^= 0xff
		if r, err := Open(bytes.NewReader(b), int64(len(b))); err == nil {
			_ = r.Walk(func(string, *File) error { return nil }) // no panic
			if at >= superAt && at < blockSize {
				t.Fatalf("byte %d of the superblock may change", at)
			}
		}
	}
	n := &Node{Mode: typeRegular}
	for name, value := range map[string]string{"system.other": "", "user.": "", "none": "", "user." + strings.Repeat("n", 251): "", "user.x": strings.Repeat("v", 1<<16)} {
		if err := n.SetXattr(name, value); err == nil {
			t.Errorf("%.20s was taken", name)
		}
	}
	if _, _, err := NewWriter(good).Finish(t.Context(), n); err == nil {
		t.Error("a file is the root")
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00", strings.Repeat("n", 256), strings.Repeat("n", 2*blockSize)} {
		root := &Node{Mode: typeDir, Children: map[string]*Node{name: {Mode: typeRegular}}}
		if _, _, err := NewWriter(good).Finish(t.Context(), root); err == nil {
			t.Errorf("%.20q is a name", name)
		}
	}
	if err := n.SetXattr("user."+strings.Repeat("n", 250), ""); err != nil {
		t.Error(err)
	}
	for _, size := range []int64{-1, math.MaxInt64, math.MaxInt64 - blockSize, 1 << 44} {
		if err := NewWriter(good).Data(n, strings.NewReader("x"), size); err != ErrTooLarge {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, _, err := NewWriter(good).Finish(ended, &Node{Mode: typeDir}); err != context.Canceled {
		t.Error(err)
	}
	if err := NewWriter(good).Data(n, strings.NewReader("x"), 2); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}

// FuzzOpen reads anything.
func FuzzOpen(f *testing.F) {
	root, text := sample()
	delete(root.Children, "big")
	blob := write(f, root, text)
	data, err := os.ReadFile(blob.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[superAt:blockSize], data[len(data)-8*blockSize:])
	f.Fuzz(func(t *testing.T, super, rest []byte) {
		b := make([]byte, blockSize, blockSize+len(rest))
		copy(b[superAt:], super)
		b = append(b, rest...)
		copy(b[superAt+4:], []byte{0, 0, 0, 0})
		sum := checksum(b[:blockSize])
		copy(b[superAt+4:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
		r, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		left := 10000
		_ = r.Walk(func(path string, f *File) error {
			if left--; left < 0 || len(path) > 4096 {
				return io.EOF
			}
			_, err := io.Copy(io.Discard, r.Contents(f))
			return err
		})
	})
}
