package namespaces

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// userNSChild starts a process in a new user namespace that has no maps yet.
func userNSChild(t *testing.T) (int, *os.File) {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000")
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
			t.Skipf("this machine lets us make no user namespace: %v", err)
		}
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); f.Close() })
	return cmd.Process.Pid, f
}

func TestWriteMaps(t *testing.T) {
	auto, err := AutoIDMaps(Subordinate)
	if err != nil {
		t.Fatal(err)
	}
	caller, err := AutoIDMaps(RootIsCaller)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]IDMaps{"subordinate": auto.IDMaps, "root is caller": caller.IDMaps, "single": SingleIDMaps()} {
		t.Run(name, func(t *testing.T) {
			pid, pidfd := userNSChild(t)
			if err := WriteMaps(t.Context(), pid, pidfd, m); err != nil {
				t.Fatal(err)
			}
			if got, err := IDMapsOf(pid); err != nil || !got.Equal(m) {
				t.Errorf("got %v, %v, want %v", got, err, m)
			}
			err := WriteMaps(t.Context(), pid, pidfd, m)
			if err == nil {
				t.Error("maps were set twice")
			} else if len(m.UID) == 1 && m.UID[0].Size == 1 && (!errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "must not have been set before")) {
				t.Errorf("second time: %v", err)
			}
		})
	}
}

func TestWriteMapsAsUserWithRanges(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	m, err := AutoIDMaps(RootIsCaller)
	if err != nil {
		t.Fatal(err)
	}
	if m.Shortfall != nil {
		t.Skipf("needs subordinate ids: %v", m.Shortfall)
	}
	pid, pidfd := userNSChild(t)
	foreign := IDMaps{[]IDMap{{0, 1, 5}}, m.GID}
	err = WriteMaps(t.Context(), pid, pidfd, foreign)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("ids of others: %v", err)
	}
	if err := WriteMaps(t.Context(), pid, pidfd, m.IDMaps); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	pid, pidfd = userNSChild(t)
	if err := WriteMaps(canceled, pid, pidfd, m.IDMaps); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestWriteMapsRefuses(t *testing.T) {
	pid, pidfd := userNSChild(t)
	for name, c := range map[string]struct {
		pid  int
		fd   *os.File
		m    IDMaps
		want error
	}{
		"bad maps":      {pid, pidfd, IDMaps{}, ErrInvalid},
		"bad pid":       {0, pidfd, SingleIDMaps(), ErrInvalid},
		"other process": {os.Getpid(), pidfd, SingleIDMaps(), ErrInvalid},
		"not a pidfd":   {pid, os.Stdin, SingleIDMaps(), ErrInvalid},
		"no process":    {1<<22 + 1, nil, SingleIDMaps(), ErrProcessGone},
	} {
		if err := WriteMaps(t.Context(), c.pid, c.fd, c.m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if got, _ := IDMapsOf(pid); !got.IsZero() {
		t.Errorf("a refused call set %v", got)
	}
}

func TestWriteMapsToProcessThatEnded(t *testing.T) {
	pid, pidfd := userNSChild(t)
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := WriteMaps(t.Context(), pid, pidfd, SingleIDMaps()); !errors.Is(err, ErrProcessGone) {
		t.Errorf("err = %v", err)
	}
}

func TestNewIDMapMissing(t *testing.T) {
	dirs := newIDMapDirs
	t.Cleanup(func() { newIDMapDirs = dirs })
	newIDMapDirs = []string{t.TempDir()}
	if _, _, err := findNewIDMap(); !errors.Is(err, ErrNoNewIDMap) || !strings.Contains(err.Error(), "apt-get install uidmap") {
		t.Errorf("err = %v", err)
	}
}
