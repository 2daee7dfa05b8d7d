package linux

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// child starts a shell and opens its pidfd before anybody waits for it.
func child(t *testing.T, script string) (*exec.Cmd, *os.File) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := PidfdOpen(cmd.Process.Pid, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pidfd.Close() })
	return cmd, pidfd
}

func TestWaitid(t *testing.T) {
	for script, want := range map[string]unix.WaitStatus{
		"exit 0": 0, "exit 42": 42 << 8, "kill -9 $$": 9, "exit 255": 255 << 8, "kill -TERM $$": 15,
	} {
		cmd, pidfd := child(t, script)
		got, err := Waitid(pidfd, 0)
		if err != nil || got.Status != want || got.PID != cmd.Process.Pid {
			t.Errorf("%s: got %+v, %v; want %v", script, got, err, want)
		}
		if _, err := Waitid(pidfd, 0); !errors.Is(err, unix.ECHILD) {
			t.Errorf("%s: second wait: %v", script, err)
		}
		info, err := PidfdInfo(pidfd)
		if r, _ := KernelRelease(); !r.AtLeast(6, 15) && err != nil {
			continue // before that the kernel keeps no exit status
		}
		if err != nil || !info.Ended || info.Status != want {
			t.Errorf("%s: after the reap: %+v, %v", script, info, err)
		}
		cmd.Process.Release()
	}
}

func TestPidfdRunning(t *testing.T) {
	cmd, pidfd := child(t, "exec sleep 60")
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if _, err := Waitid(pidfd, unix.WNOHANG); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("wait for a running child: %v", err)
	}
	if r, _ := KernelRelease(); r.AtLeast(6, 13) {
		info, err := PidfdInfo(pidfd)
		if err != nil || info.PID != cmd.Process.Pid || info.PPID != os.Getpid() || info.Ended || int(info.EUID) != os.Geteuid() || !info.HasCreds {
			t.Errorf("info %+v, %v", info, err)
		}
	}
	if err := PidfdSendSignal(pidfd, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if err := PidfdSendSignal(pidfd, unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal after the reap: %v", err)
	}
}

func TestPidfdGetfd(t *testing.T) {
	self, err := PidfdOpen(os.Getpid(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	got, err := PidfdGetfd(self, int(null.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	a, _ := got.Stat()
	if b, _ := null.Stat(); !os.SameFile(a, b) {
		t.Error("another file came")
	}
}

// No call uses the current directory, or descriptor 0, where it is given no file.
func TestNoFile(t *testing.T) {
	closed, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, f := range []*os.File{nil, closed} {
		for name, call := range map[string]func() error{
			"openat":  func() error { _, err := Openat(f, ".", unix.O_PATH, 0); return err },
			"openat2": func() error { _, err := Openat2(f, ".", OpenHow{Flags: unix.O_PATH}); return err },
			"waitid":  func() error { _, err := Waitid(f, 0); return err },
			"info":    func() error { _, err := PidfdInfo(f); return err },
			"signal":  func() error { return PidfdSendSignal(f, unix.SIGKILL) },
		} {
			if err := call(); !errors.Is(err, os.ErrInvalid) && !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}

func TestOpenat2(t *testing.T) {
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := openat2Again(root, "../proc/self", OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_IN_ROOT})
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("no openat2 here")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, err)
	}
	var se *os.SyscallError
	if _, err := openat2Again(root, "..", OpenHow{Resolve: unix.RESOLVE_BENEATH}); !errors.Is(err, unix.EXDEV) || !errors.As(err, &se) || se.Syscall != "openat2" {
		t.Errorf("got %v", err)
	}
}

// openat2Again asks again while renames elsewhere on the machine meet the "..", which the kernel answers with
// EAGAIN; other tests and programs rename all the time.
func openat2Again(dir *os.File, path string, how OpenHow) (*os.File, error) {
	for {
		f, err := Openat2(dir, path, how)
		if !errors.Is(err, unix.EAGAIN) {
			return f, err
		}
	}
}
