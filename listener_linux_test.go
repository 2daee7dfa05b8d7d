package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// heard is what came to a listener: the descriptor is closed, so that calls fail with ENOSYS.
type heard struct {
	state specs.ContainerProcessState
	files int
	err   error
}

// hearing listens on a socket in dir, and answers what comes.
func hearing(t *testing.T, dir string) (string, <-chan heard) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	out, done := make(chan heard, 10), make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			out <- hear(c)
		}
	}()
	return l.Addr().String(), out
}

func hear(c *net.UnixConn) (h heard) {
	defer c.Close()
	b, oob := make([]byte, 1<<16), make([]byte, 1024)
	n, m, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return heard{err: err}
	}
	rest, err := io.ReadAll(c)
	h.err = errors.Join(err, json.Unmarshal(append(b[:n], rest...), &h.state))
	msgs, err := unix.ParseSocketControlMessage(oob[:m])
	h.err = errors.Join(h.err, err)
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		h.err = errors.Join(h.err, err)
		for _, fd := range fds {
			h.files++
			h.err = errors.Join(h.err, unix.Close(fd))
		}
	}
	return h
}

// TestSeccompListener: another program gets the listener of the first process and of each that is executed later, with the state.
func TestSeccompListener(t *testing.T) {
	noLeaks(t)
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}}}
	for name, nnp := range map[string]bool{"no_new_privs": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			socket, came := hearing(t, shortDir(t))
			next := func() heard {
				select {
				case h := <-came:
					if h.err != nil || h.files != 1 || h.state.Metadata != "mine" || len(h.state.Fds) != 1 || h.state.Fds[0] != specs.SeccompFdName || h.state.State.ID != "heard" || h.state.State.Annotations["a"] != "b" {
						t.Fatalf("%+v", h)
					}
					return h
				case <-time.After(30 * time.Second):
					t.Fatal("nothing came")
				}
				return heard{}
			}
			c := newContainer(t, WithID("heard"), WithLabels(map[string]string{"a": "b"}), WithRootfs(dirOf(t)), WithSeccomp(profile), WithNoNewPrivileges(nnp),
				WithSeccompListener(socket, "mine"), WithCommand("sleep", "1000"))
			p, err := c.Start(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			if h := next(); h.state.Pid != p.Pid() || h.state.State.Pid != p.Pid() || h.state.State.Status != specs.StateCreating {
				t.Errorf("%d: %+v", p.Pid(), h.state)
			}
			out, res := execs(t, c, "mkdir /tmp/x 2>&1")
			if res.Success() {
				t.Errorf("%q, %v", out, res)
			}
			if h := next(); h.state.Pid == p.Pid() || h.state.Pid <= 1 || h.state.State.Pid != p.Pid() || h.state.State.Status != specs.StateRunning {
				t.Errorf("%d: %+v", p.Pid(), h.state)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		c := newContainer(t, WithRootfs(dirOf(t)), WithSeccomp(profile), WithSeccompListener(filepath.Join(t.TempDir(), "none"), ""), WithCommand("true"))
		if _, err := c.Start(testContext(t)); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%v", err)
		}
	})
	for want, opts := range map[string][]Option{
		"absolute":          {WithSeccompListener("here", "")},
		"without a socket":  {WithSeccompListener("", "x")},
		"WithSeccompNotify": {WithSeccompListener("/s", ""), WithSeccompNotify(func(_ context.Context, n *SeccompNotification) { _ = n.Continue() }, "mkdir")},
	} {
		if _, err := New(append(opts, WithCommand("true"))...); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// shortDir is a directory with a path that fits into the address of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "caisson-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
