package program

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func mustBuild(t testing.TB, f func(b *Builder)) *Program {
	t.Helper()
	b := NewBuilder(false)
	f(b)
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExplain(t *testing.T) {
	p := mustBuild(t, func(b *Builder) {
		b.Step("mount proc on", "/proc")
		b.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV, "").Ignore(unix.ENOENT)
		b.Step("open", "layer")
		fd := b.OpenTree(b.Input("root"), "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH)
		b.MoveMount(fd.Result(), Cwd(), "/x")
		b.JumpZero(fd, 0)
		b.MountSetattr(fd.Result(), "", true, unix.MOUNT_ATTR_RDONLY, 0, unix.MS_PRIVATE, Null())
		b.Execve("/bin/sh", []string{"sh", "-c", "a\"b"}, nil)
	})
	var out strings.Builder
	if err := p.Explain(&out); err != nil {
		t.Fatal(err)
	}
	want := `# mount proc on /proc
mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV, NULL)  # tolerates ENOENT
# open layer
open_tree(<root>, "", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH)
move_mount(<open_tree layer>, "", AT_FDCWD, "/x", MOVE_MOUNT_F_EMPTY_PATH)
mount_setattr(<open_tree layer>, "", AT_EMPTY_PATH|AT_RECURSIVE, {attr_set=MOUNT_ATTR_RDONLY, attr_clr=0, propagation=MS_PRIVATE, userns_fd=0}, 32)
execve("/bin/sh", ["sh", "-c", "a\"b"], [])
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

func TestBuildFaults(t *testing.T) {
	tests := map[string]func(b *Builder){
		"label never placed": func(b *Builder) { b.Chdir("/").Then(b.NewLabel()) },
		"four errnos": func(b *Builder) {
			b.Chdir("/").Ignore(unix.ENOENT, unix.EPERM, unix.EACCES, unix.EIO)
		},
		"seven arguments": func(b *Builder) {
			b.Call(1, "x", Int(1), Int(2), Int(3), Int(4), Int(5), Int(6), Int(7))
		},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder(false)
			f(b)
			if _, err := b.Build(); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestEncodeFaults(t *testing.T) {
	p := mustBuild(t, func(b *Builder) { b.Close(b.Input("x")) })
	if _, err := p.Encode(nil, 0x1000, nil, 2); !errors.Is(err, ErrInputs) {
		t.Errorf("missing input: %v", err)
	}
	p = mustBuild(t, func(b *Builder) { b.Chdir("a\x00b") })
	if _, err := p.Encode(nil, 0x1000, nil, 2); err == nil {
		t.Error("a NUL byte in a string is accepted")
	}
	p = mustBuild(t, func(b *Builder) {
		r := b.Chdir("/")
		b.Call(unix.SYS_CHDIR, "chdir", Bytes(make([]byte, 8), "x").With(0, r.Result()))
	})
	if _, err := p.Encode(nil, 0x1000, nil, 2); err == nil {
		t.Error("a struct holds the result of an operation")
	}
}

// Run performs the same operations as the interpreter: files, results as arguments, jumps, words.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := mustBuild(t, func(b *Builder) {
		b.Step("write", "file")
		in := b.Input("dir")
		skip := b.NewLabel()
		b.Mkdirat(in, "sub", 0o755)
		b.Mkdirat(in, "sub", 0o755).IgnoreTo(skip, unix.EEXIST)
		b.Mkdirat(in, "not made", 0o755)
		b.Mark(skip)
		w := b.Words(1)
		loop := b.NewLabel()
		b.Mark(loop)
		f := b.Openat(in, "sub/f", unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND, 0o600)
		b.Write(f.Result(), "x")
		b.Close(f.Result())
		b.Add(w, 1)
		b.JumpBelow(w, Int(4), loop)
	})
	if err := p.Run([]int{int(d.Fd())}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "sub/f"))
	if err != nil || string(got) != "xxx" {
		t.Errorf("%q, %v; want three turns of the loop", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "not made")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the jump was not taken: %v", err)
	}
}

func TestRunReportsTheStep(t *testing.T) {
	p := mustBuild(t, func(b *Builder) {
		b.Step("change to", "/no/such")
		b.Chdir("/no/such")
	})
	err := p.Run(nil)
	var se *StepError
	if !errors.As(err, &se) || se.Step != "change to" || se.Object != "/no/such" || se.Syscall != "chdir" || se.Call != `chdir("/no/such")` || !errors.Is(err, unix.ENOENT) {
		t.Fatalf("%#v", err)
	}
}

// The size hint bounds what Encode needs, whatever the arguments.
func FuzzSizeHint(f *testing.F) {
	f.Add("a", "b", 3)
	f.Fuzz(func(t *testing.T, s1, s2 string, n int) {
		if strings.Contains(s1+s2, "\x00") {
			return
		}
		p := mustBuild(t, func(b *Builder) {
			for range n & 31 {
				b.Mount(s1, s2, s1, 0, s2)
				b.Execve(s1, []string{s1, s2, s2}, []string{s2})
				b.Write(b.Input(s1), s2)
			}
		})
		fds := make([]int, len(p.Inputs()))
		mem, err := p.Encode(nil, 0x1000, fds, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(mem) > p.sizeHint() {
			t.Fatalf("encoded %d bytes, hint %d", len(mem), p.sizeHint())
		}
	})
}

// A program that is encoded again and again looks the same each time but for the numbers of its inputs.
func TestEncodeAgain(t *testing.T) {
	build := func() *Program {
		return mustBuild(t, func(b *Builder) {
			b.Step("a", "b")
			in, other := b.Input("in"), b.Input("other")
			r := b.Openat(in, "x", unix.O_RDONLY, 0)
			b.MountSetattr(r.Result(), "", true, unix.MOUNT_ATTR_IDMAP, 0, 0, other)
			w := b.Words(1, 2, 3)
			b.Point(w+1, in)
			b.Point(w+2, w.Addr())
			b.Execve("/bin/true", []string{"true"}, []string{"A=b"})
		})
	}
	same := build()
	var buf []byte
	for i, c := range []struct {
		base   uintptr
		fds    []int
		report int
	}{{4096, []int{7, 8}, 9}, {4096, []int{7, 8}, 9}, {4096, []int{70000, -1}, 3}, {8192, []int{1, 2}, 4}, {4096, []int{5, 6}, 7}} {
		want, err := build().Encode(nil, c.base, c.fds, c.report)
		if err != nil {
			t.Fatal(err)
		}
		if buf, err = same.Encode(buf, c.base, c.fds, c.report); err != nil || !bytes.Equal(buf, want) {
			t.Errorf("%d: differs (%v)", i, err)
		}
		if _, err := same.Encode(nil, c.base, c.fds[:1], c.report); !errors.Is(err, ErrInputs) {
			t.Errorf("%d: %v", i, err)
		}
	}
}
