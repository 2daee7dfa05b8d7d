//go:build linux

package stage

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// waiting starts a stage that waits for the rest of its program.
func waiting(t *testing.T) *Child {
	t.Helper()
	p := build(t, func(b *program.Builder) {
		b.Chdir("/")
		EmitNext(b, 7)
	})
	c, err := Start(Config{Program: p, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Conn.Close()
		c.Kill()
		unix.Close(c.Pidfd)
	})
	if m, err := c.Conn.Recv(); err != nil || m.Tag != 7 {
		t.Fatal(m, err)
	}
	return c
}

// inBothWays runs f with stages that are executed, and with copies of the host program.
func inBothWays(t *testing.T, f func(t *testing.T)) {
	t.Run("executed", f)
	t.Run("copy", func(t *testing.T) {
		noExecutables(t)
		f(t)
	})
}

func TestNextProgram(t *testing.T) {
	inBothWays(t, func(t *testing.T) {
		for name, args := range map[string][]string{
			"short":            {"sh", "-c", "cat <&0; exit 9"},
			"several messages": {"sh", "-c", "cat <&0; exit 9 #" + strings.Repeat("x", 100<<10)},
		} {
			t.Run(name, func(t *testing.T) {
				c := waiting(t)
				in, out, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				next := build(t, func(b *program.Builder) {
					fds := EmitReceive(b, "stdin", "stdout")
					for i, fd := range fds { // in a copy nothing is below
						high := b.Fcntl(fd, unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", 10+i)
						b.Dup3(high.Result(), i, 0)
					}
					b.CloseRange(2, unix.CLOSE_RANGE_CLOEXEC)
					b.Step("execute", "sh")
					b.Execve("/bin/sh", args, []string{"PATH=/usr/bin:/bin"})
				})
				text, err := os.Open("next_test.go")
				if err != nil {
					t.Fatal(err)
				}
				defer text.Close()
				if err := c.Conn.SendNext(next, int(text.Fd()), int(out.Fd())); err != nil {
					t.Fatal(err)
				}
				out.Close()
				got, err := io.ReadAll(in)
				if want, _ := os.ReadFile("next_test.go"); err != nil || string(got) != string(want) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				if _, err := c.Conn.Recv(); err != io.EOF {
					t.Error(err)
				}
				var st unix.WaitStatus
				if _, err := unix.Wait4(c.Pid, &st, unix.WALL|unix.WNOTHREAD, nil); err != nil && err != unix.ECHILD {
					t.Fatal(err)
				}
				if st != 0 && st.ExitStatus() != 9 {
					t.Error(st)
				}
			})
		}
	})
}

// A failure names the step of the program in which it happened.
func TestNextProgramFails(t *testing.T) {
	inBothWays(t, func(t *testing.T) {
		c := waiting(t)
		next := build(t, func(b *program.Builder) {
			b.Step("change to", "/")
			b.Chdir("/")
			b.Step("change to", "/no/such")
			b.Chdir("/no/such")
			b.ExitGroup(0)
		})
		if err := c.Conn.SendNext(next); err != nil {
			t.Fatal(err)
		}
		var se *program.StepError
		if _, err := c.Conn.Recv(); !errors.As(err, &se) || se.Object != "/no/such" || se.Index != 1 || se.Errno != unix.ENOENT {
			t.Error(err)
		}
	})
}

func TestNextProgramTooLong(t *testing.T) {
	c := waiting(t)
	next := build(t, func(b *program.Builder) {
		b.Write(program.Int(0), strings.Repeat("x", program.MaxNext))
		b.ExitGroup(0)
	})
	if err := c.Conn.SendNext(next); !errors.Is(err, ErrNextTooLong) {
		t.Error(err)
	}
	if _, err := unix.FcntlInt(uintptr(c.Pidfd), unix.F_GETFD, 0); err != nil {
		t.Error(err)
	}
}

// A stage ends when nobody is left who could send it anything, and SendNext to it is no error.
func TestNextProgramNeverComes(t *testing.T) {
	c := waiting(t)
	_ = unix.PidfdSendSignal(c.Pidfd, unix.SIGKILL, nil, 0)
	if !AwaitShort(c.Pidfd, 10e9) {
		t.Fatal("it lives")
	}
	next := build(t, func(b *program.Builder) { b.ExitGroup(0) })
	if err := c.Conn.SendNext(next, 0); err != nil {
		t.Error(err)
	}
	if _, err := c.Conn.Recv(); err != io.EOF {
		t.Error(err)
	}
}
