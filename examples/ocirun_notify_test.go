//go:build linux

package examples_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// manager is a service manager's socket.
type manager struct {
	*net.UnixConn
	path string
}

func newManager(t *testing.T, c caller) manager {
	t.Helper()
	path := filepath.Join(c.dir, "manager")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(path, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return manager{l, path}
}

// next is what is said next, and closes what comes with it.
func (m manager) next(t *testing.T) string {
	t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf, control := make([]byte, 65536), make([]byte, 64)
	n, cn, _, _, err := m.ReadMsgUnix(buf, control)
	if err != nil {
		t.Fatal(err)
	}
	list, _ := unix.ParseSocketControlMessage(control[:cn])
	for _, msg := range list {
		fds, _ := unix.ParseUnixRights(&msg)
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	return string(buf[:n])
}

func (m manager) want(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if got := m.next(t); got != text {
			t.Errorf("the service manager hears %.200q, not %q", got, text)
		}
	}
}

// Of what a container says to its service manager, only that it is ready is passed on.
func TestOcirunNotify(t *testing.T) {
	lies := []string{"MAINPID=1\nSTATUS=mine", "STOPPING=1", "NOTREADY=1\nREADY=11", strings.Repeat("x", 5000) + "\nREADY=1"}
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) {
			s.Process.Args = append([]string{"/bin/probe", "say"}, slices.Concat(lies, []string{"STATUS=up\nREADY=1", "RELOADING=1"})...)
		})
		b, err := os.ReadFile(filepath.Join(bin, "conformance"))
		if err == nil {
			err = os.WriteFile(filepath.Join(r.bundle, "rootfs/bin/probe"), b, 0o755)
		}
		if err == nil && !c.root() {
			err = os.Mkdir(filepath.Join(r.bundle, "rootfs/run/notify"), 0o755) // the user cannot
		}
		if err != nil {
			t.Fatal(err)
		}
		m := newManager(t, c)
		notified := func(args ...string) result {
			cmd := r.ociCommand(t, args...)
			cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
			done := make(chan result, 1)
			go func() { done <- r.finishLeaving(t, cmd) }()
			if args[0] == "start" || args[1] == "-d" { // waits for the container
				pid := m.next(t)
				m.want(t, "BARRIER=1")
				if want := fmt.Sprintf("MAINPID=%d\nREADY=1\n", r.status(t, "web").Pid); pid != want {
					t.Errorf("the service manager hears %q, not %q", pid, want)
				}
			}
			return <-done
		}
		end := func() {
			r.oci(t, "kill", "web", "9").want(t, 0)
			awaitStatus(t, r, "web", specs.StateStopped)
			r.oci(t, "delete", "web").want(t, 0)
			if list, err := filepath.Glob(r.state + "/.notify*"); len(list) > 0 || err != nil {
				t.Errorf("left: %v %v", list, err)
			}
		}
		notified("create", "web").want(t, 0)
		if got := notified("create", "web"); got.code != 1 {
			t.Errorf("another of the same id: %v", got)
		}
		notified("start", "web").want(t, 0)
		end()
		notified("run", "-d", "web").want(t, 0)
		end()

		cmd := r.ociCommand(t, "run", "web") // attached: ocirun remains the main process
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		m.want(t, "READY=1\n", "BARRIER=1")
		r.oci(t, "kill", "web", "9").want(t, 0)
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 137 {
			t.Errorf("%v: %s", err, &errs)
		}

		r.change(t, func(s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", "test -d /run/notify && ! touch /run/notify/x"}
		})
		notified("create", "web").want(t, 0)
		cmd = r.ociCommand(t, "start", "web") // ends without a word
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
		r.finishLeaving(t, cmd).want(t, 0)
		awaitStatus(t, r, "web", specs.StateStopped)
		r.oci(t, "delete", "web").want(t, 0)
		if err := m.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := m.Read(make([]byte, 100)); err == nil {
			t.Errorf("the service manager hears %d more bytes", n)
		}

		r.change(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin"} })
		for range 2 { // one that cannot run is not left behind
			if got := notified("run", "web"); got.code == 0 || strings.Contains(got.stderr, "exists") {
				t.Errorf("a directory as the program: %v", got)
			}
		}
		if got := r.oci(t, "state", "web"); got.code == 0 {
			t.Errorf("left: %v", got)
		}
		before, err := os.Stat(r.state)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"", ".", "..", ".x", "a/b"} {
			if got := notified("create", id); got.code == 0 {
				t.Errorf("%q: %v", id, got)
			}
		}
		if after, err := os.Stat(r.state); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%v of the state directory, was %v: %v", after, before.Mode(), err)
		}
		if list, err := filepath.Glob(r.state + "/.[nx]*"); len(list) > 0 || err != nil {
			t.Errorf("left: %v %v", list, err)
		}
	})
}
