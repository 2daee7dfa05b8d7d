package linux

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func connPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fa, fb, err := Socketpair(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(f *os.File) *net.UnixConn {
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fa), conn(fb)
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestRights(t *testing.T) {
	a, b := connPair(t)
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	before := countFDs(t)
	for _, n := range []int{0, 1, 3, 100} {
		files := make([]*os.File, n)
		for i := range files {
			files[i] = dir
		}
		if err := SendFiles(a, []byte("hi"), files...); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		got, rec, err := ReceiveFiles(b, buf, n)
		if err != nil || string(buf[:got]) != "hi" || len(rec) != n {
			t.Fatalf("got %q, %d files, %v", buf[:got], len(rec), err)
		}
		for _, f := range rec {
			x, _ := f.Stat()
			y, _ := dir.Stat()
			flags, _ := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			if !os.SameFile(x, y) || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("file %v, descriptor flags %#x", x, flags)
			}
			f.Close()
		}
	}
	for _, surplus := range []int{1, 2, 50} {
		files := make([]*os.File, 2+surplus)
		for i := range files {
			files[i] = dir
		}
		if err := SendFiles(a, []byte("x"), files...); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReceiveFiles(b, make([]byte, 1), 2); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%d files too many: %v", surplus, err)
		}
	}
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if err := SendFiles(a, nil, dir); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no data: %v", err)
	}
	if err := SendFiles(a, []byte("x"), nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("nil file: %v", err)
	}
	a.Close()
	if n, files, err := ReceiveFiles(b, make([]byte, 1), 2); n != 0 || len(files) != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("end: %d, %v, %v", n, files, err)
	}
}

func FuzzRights(f *testing.F) {
	f.Add(unix.UnixRights())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, oob []byte) {
		// Only headers that carry no descriptor may be parsed: the numbers would name files of this process.
		if msgs, err := unix.ParseSocketControlMessage(oob); err == nil {
			for _, m := range msgs {
				if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_RIGHTS {
					return
				}
			}
		}
		if files, _ := parseRights(oob); len(files) != 0 {
			t.Fatalf("%d files from nothing", len(files))
		}
	})
}
