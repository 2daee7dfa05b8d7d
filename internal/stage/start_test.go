//go:build linux

package stage

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// run starts a program and returns how the host's end saw it, and the exit status.
func run(t testing.TB, p *program.Program, ns uint64) (status unix.WaitStatus, err error) {
	t.Helper()
	c, err := Start(Config{Program: p, Namespaces: ns, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.Pidfd)
	defer c.Conn.Close()
	_, err = c.Conn.Recv()
	if _, werr := unix.Wait4(c.Pid, &status, unix.WALL, nil); werr != nil {
		t.Fatal(werr)
	}
	return status, err
}

func build(t testing.TB, f func(b *program.Builder)) *program.Program {
	t.Helper()
	b := program.NewBuilder(false)
	f(b)
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStartExecutes(t *testing.T) {
	p := build(t, func(b *program.Builder) {
		b.Step("execute", "sh")
		b.Execve("/bin/sh", []string{"sh", "-c", "exit 7"}, nil)
	})
	st, err := run(t, p, 0)
	if err != io.EOF || st.ExitStatus() != 7 {
		t.Fatalf("err %v, status %v; want EOF and 7", err, st)
	}
}

func TestStartReportsTheFailedStep(t *testing.T) {
	p := build(t, func(b *program.Builder) {
		b.Step("change to", "/no/such")
		b.Chdir("/")
		b.Chdir("/no/such")
		b.ExitGroup(0)
	})
	st, err := run(t, p, 0)
	var se *program.StepError
	if !errors.As(err, &se) || se.Index != 1 || se.Errno != unix.ENOENT || se.Syscall != "chdir" || !errors.Is(err, unix.ENOENT) {
		t.Fatalf("err %v, want step 1 chdir ENOENT", err)
	}
	if st.ExitStatus() != 127 {
		t.Fatalf("status %v", st)
	}
}

// A failure is reported also when the stage dies without having read what the host sent.
func TestFailureAfterUnreadRelease(t *testing.T) {
	p := build(t, func(b *program.Builder) {
		EmitWait(b)
		b.Step("change to", "/no/such")
		b.Chdir("/no/such")
		b.ExitGroup(0)
	})
	c, err := Start(Config{Program: p, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.Pidfd)
	defer c.Conn.Close()
	for range 3 { // one is read
		if err := c.Conn.Release(); err != nil {
			t.Fatal(err)
		}
	}
	Reap(c.Pidfd)
	if err := c.Conn.Release(); err != nil {
		t.Errorf("release of a stage that has ended: %v", err)
	}
	if _, err := c.Conn.Recv(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want ENOENT", err)
	}
}

// Every pseudo operation, indirect arguments and ignored errnos, judged by the exit status.
func TestInterpreter(t *testing.T) {
	tests := map[string]func(b *program.Builder){
		"ignored errno jumps": func(b *program.Builder) {
			l := b.NewLabel()
			b.Chdir("/no/such").IgnoreTo(l, unix.EPERM, unix.EACCES, unix.ENOENT)
			b.ExitGroup(1)
			b.Mark(l)
			b.ExitGroup(42)
		},
		"success jumps": func(b *program.Builder) {
			l := b.NewLabel()
			b.Chdir("/").Then(l)
			b.ExitGroup(1)
			b.Mark(l)
			b.ExitGroup(42)
		},
		"result as argument": func(b *program.Builder) {
			fd := b.Openat(program.Cwd(), "/", unix.O_PATH|unix.O_DIRECTORY, 0)
			b.Fchdir(fd.Result())
			b.Close(fd.Result())
			b.Fchdir(fd.Result()).Ignore(unix.EBADF)
			b.ExitGroup(42)
		},
		"words": func(b *program.Builder) {
			w := b.Words(7, 0)
			b.Call(unix.SYS_UMASK, "umask", program.Octal(0o22))
			r := b.Call(unix.SYS_UMASK, "umask", program.Octal(0o17))
			b.Copy(r, w+1) // 022 = 18
			b.CopyWord(w+1, w)
			b.Add(w, 20)
			loop, bad := b.NewLabel(), b.NewLabel()
			b.Mark(loop)
			b.Add(w, 1)
			b.JumpBelow(w, program.Int(42), loop)
			z := b.Call(unix.SYS_CHDIR, "chdir", program.Str("/"))
			b.JumpZero(r, bad)
			good := b.NewLabel()
			b.JumpZero(z, good)
			b.Mark(bad)
			b.ExitGroup(1)
			b.Mark(good)
			b.Call(unix.SYS_EXIT_GROUP, "exit_group", w.Value())
		},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			if st, err := run(t, build(t, f), 0); err != io.EOF || st.ExitStatus() != 42 {
				t.Fatalf("err %v, status %d; want EOF, 42", err, st.ExitStatus())
			}
		})
	}
}

func TestFailZero(t *testing.T) {
	p := build(t, func(b *program.Builder) {
		z := b.Chdir("/")
		b.FailZero(z, unix.ESRCH)
		b.ExitGroup(0)
	})
	if _, err := run(t, p, 0); !errors.Is(err, unix.ESRCH) {
		t.Fatalf("err %v, want ESRCH", err)
	}
}

// Every way to make an executable works where it is allowed, and so does plain clone.
func TestFallbacks(t *testing.T) {
	p := build(t, func(b *program.Builder) { b.ExitGroup(42) })
	for i, m := range exeMakers {
		t.Run(m.name, func(t *testing.T) {
			if m.name == "file in a detached tmpfs" && unix.Getuid() != 0 {
				t.Skip("needs CAP_SYS_ADMIN")
			}
			exeMode.Store(int32(i))
			defer exeMode.Store(0)
			if st, err := run(t, p, 0); err != io.EOF || st.ExitStatus() != 42 {
				t.Fatalf("err %v, status %v", err, st)
			}
			if got := exeMode.Load(); got != int32(i) {
				t.Fatalf("fell through to %s", exeMakers[got].name)
			}
		})
	}
	t.Run("clone", func(t *testing.T) {
		noClone3.Store(true)
		defer noClone3.Store(false)
		if st, err := run(t, p, 0); err != io.EOF || st.ExitStatus() != 42 {
			t.Fatalf("err %v, status %v", err, st)
		}
	})
}

func BenchmarkStart(b *testing.B) {
	p := build(b, func(b *program.Builder) { b.ExitGroup(0) })
	for b.Loop() {
		run(b, p, 0)
	}
}

// A stage may fail before it has read a release that was sent early. Its last word must not get lost over that.
func TestFailureAfterEarlyRelease(t *testing.T) {
	p := build(t, func(b *program.Builder) { b.Step("do", "something"); b.Fchdir(program.Int(-1)) })
	host, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	c := &Conn{fd: host, p: p}
	defer c.Close()
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	rec := binary.NativeEndian.AppendUint64(nil, 5000)
	rec = binary.NativeEndian.AppendUint64(rec, uint64(unix.EBADF))
	if _, err := unix.Write(theirs, rec); err != nil {
		t.Fatal(err)
	}
	unix.Close(theirs)
	if _, err := c.Recv(); !errors.Is(err, unix.EBADF) {
		t.Errorf("the failure was lost: %v", err)
	}
	if _, err := c.Recv(); err != io.EOF {
		t.Errorf("after it: %v", err)
	}
}
