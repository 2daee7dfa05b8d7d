//go:build linux

package stage

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// noExecutables lets no file of ours be executed, so that stages are copies.
func noExecutables(t *testing.T) {
	t.Helper()
	old := exeMakers
	exeMakers = nil
	t.Cleanup(func() { exeMakers = old; copied.Store(false) })
}

func TestCopyRunsPrograms(t *testing.T) {
	noExecutables(t)
	for name, hidden := range map[string]bool{"clone3": false, "clone": true} {
		t.Run(name, func(t *testing.T) {
			noClone3.Store(hidden)
			defer noClone3.Store(false)
			TestStartExecutes(t)
			TestStartReportsTheFailedStep(t)
			TestFailureAfterUnreadRelease(t)
			TestInterpreter(t)
		})
	}
	if how, err := Probe(); err != nil || how != copyName {
		t.Errorf("%s, %v", how, err)
	}
}

// What a copy does before its program is told as its program's failures are.
func TestCopyReportsItsOwnFailures(t *testing.T) {
	noExecutables(t)
	p := build(t, func(b *program.Builder) { b.ExitGroup(0) })
	c, err := Start(Config{Program: p, Cgroup: -1, UIDMap: "nonsense", GIDMap: "nonsense"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.Pidfd)
	defer c.Conn.Close()
	defer Reap(c.Pidfd)
	var se *program.StepError
	if _, err := c.Conn.Recv(); !errors.As(err, &se) || !strings.HasPrefix(se.Step, "write id maps") {
		t.Errorf("%v", err)
	}
}

// A copy holds neither files nor memory of the host program.
func TestCopyLetsGo(t *testing.T) {
	noExecutables(t)
	fd, err := unix.Open("/", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p := build(t, func(b *program.Builder) {
		closed := b.NewLabel()
		b.Call(unix.SYS_FCNTL, "fcntl", program.Int(fd), program.Int(unix.F_GETFD)).IgnoreTo(closed, unix.EBADF)
		b.ExitGroup(1)
		b.Mark(closed)
		EmitSync(b, 1)
		b.ExitGroup(42)
	})
	c, err := Start(Config{Program: p, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.Pidfd)
	defer c.Conn.Close()
	if _, err := c.Conn.Recv(); err != nil {
		c.Kill()
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(c.Pid) + "/maps")
	if n := strings.Count(string(maps), "\n"); err != nil || !hasRseq() && n > 3 {
		t.Errorf("%v, %d mappings:\n%s", err, n, maps)
	}
	if err := c.Conn.Release(); err != nil {
		t.Error(err)
	}
	var st unix.WaitStatus
	if _, err := unix.Wait4(c.Pid, &st, unix.WALL, nil); err != nil || st.ExitStatus() != 42 {
		t.Errorf("%v, status %v", err, st)
	}
	if _, err := c.Conn.Recv(); err != io.EOF {
		t.Error(err)
	}
}
