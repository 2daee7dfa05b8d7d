//go:build linux

package stage

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// exits is a program that ends with a status.
func exits(t *testing.T, status int) *program.Program {
	return build(t, func(b *program.Builder) {
		b.Step("exit", "")
		b.ExitGroup(status)
	})
}

func mustRun(t *testing.T, p *program.Program, status int) {
	t.Helper()
	if st, err := run(t, p, 0); err != io.EOF || st.ExitStatus() != status {
		t.Fatalf("%v, status %v; want EOF and %d", err, st, status)
	}
}

// sealedFDs are the kept files.
func sealedFDs(t *testing.T) (fds []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, _ := os.Readlink(l); strings.HasPrefix(to, "/memfd:"+sealedName) {
			fd, err := strconv.Atoi(filepath.Base(l))
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
	}
	return fds
}

// needSealed makes p one that is executed from a kept file, and returns that.
func needSealed(t *testing.T, p *program.Program, status int) *sealedExe {
	t.Helper()
	for range 3 {
		mustRun(t, p, status)
	}
	sealed.mu.Lock()
	defer sealed.mu.Unlock()
	for _, e := range sealed.list {
		if e.prog == p {
			return e
		}
	}
	t.Skip("this kernel cannot seal a file's permission to be executed")
	return nil
}

func TestSealedIsKept(t *testing.T) {
	p := exits(t, 3)
	mustRun(t, p, 3)
	before := len(sealedFDs(t))
	e := needSealed(t, p, 3)
	if n := len(sealedFDs(t)); n > before+1 || n > maxSealed {
		t.Errorf("%d files for one program, %d before", n, before)
	}
	if e.users != 0 {
		t.Errorf("%d users", e.users)
	}
}

// What a container could try if it had got hold of the file.
func TestSealedCannotBeChanged(t *testing.T) {
	e := needSealed(t, exits(t, 4), 4)
	if _, err := unix.Write(e.fd, []byte("x")); err != unix.EBADF {
		t.Errorf("write to the kept descriptor: %v", err)
	}
	path := "/proc/self/fd/" + strconv.Itoa(e.fd)
	w, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(w)
	r, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(r)
	for what, err := range map[string]error{
		"write":    func() error { _, err := unix.Write(w, []byte("x")); return err }(),
		"truncate": unix.Ftruncate(w, 0),
		"grow":     unix.Ftruncate(w, 1<<20),
		"punch":    unix.Fallocate(w, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096),
		"map":      func() error { _, err := unix.Mmap(w, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED); return err }(),
		"seal": func() error {
			_, err := unix.FcntlInt(uintptr(w), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE)
			return err
		}(),
		"chmod": unix.Fchmod(w, 0),
	} {
		if err != unix.EPERM {
			t.Errorf("%s: %v, want EPERM", what, err)
		}
	}
	for what, fd := range map[string]int{"reader": r, "writer": w} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != unix.EAGAIN && err != unix.EINVAL {
			t.Errorf("lease of a %s: %v", what, err)
		}
	}
	mustRun(t, e.prog, 4)
}

// A kept file that is refused is given up, and the start succeeds.
func TestSealedRefused(t *testing.T) {
	p := exits(t, 5)
	e := needSealed(t, p, 5)
	f := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bad, err := unix.Open(f, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(bad, e.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(bad)
	mustRun(t, p, 5)
	if !e.gone {
		t.Error("it is kept")
	}
	if mode := exeMode.Load(); mode != 0 {
		t.Errorf("the way to make executables has changed to %d", mode)
	}
}

func TestSealedAreFew(t *testing.T) {
	for i := range 3 * maxSealed {
		p := exits(t, i)
		for range 3 {
			mustRun(t, p, i)
		}
	}
	if n := len(sealedFDs(t)); n > maxSealed {
		t.Errorf("%d files", n)
	}
}

// Places that the program fills are nobody else's before, whatever numbers the host's descriptors have.
func TestPlaces(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	const n = 100
	p := build(t, func(b *program.Builder) {
		b.Step("open", "/proc")
		dir := b.Openat(program.Cwd(), "/proc", unix.O_PATH|unix.O_DIRECTORY, 0)
		for i := range n {
			b.Dup3(b.Input("file"), i, 0)
		}
		b.Step("use", "what was opened before")
		b.Openat(dir.Result(), "self/stat", unix.O_RDONLY, 0)
		EmitSync(b, 7)
		b.Write(program.Int(n-1), "here")
		b.ExitGroup(6)
	})
	for range 3 {
		c, err := Start(Config{Program: p, Files: map[string]int{"file": int(w.Fd())}, Cgroup: -1, Places: n})
		if err != nil {
			t.Fatal(err)
		}
		msg, err := c.Conn.Recv()
		if err != nil || msg.Tag != 7 {
			t.Errorf("%+v, %v", msg, err)
		}
		if err := c.Conn.Release(); err != nil {
			t.Error(err)
		}
		c.Conn.Recv()
		Reap(c.Pidfd)
		unix.Close(c.Pidfd)
		c.Conn.Close()
		buf := make([]byte, 8)
		if m, err := r.Read(buf); err != nil || string(buf[:m]) != "here" {
			t.Errorf("%q, %v", buf[:m], err)
		}
	}
}
