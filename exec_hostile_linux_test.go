package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// Something else in the place of a device that Exec opens inside is refused.
func TestExecForgedDevices(t *testing.T) {
	for name, script := range map[string]string{
		"null is a file":     "umount -l /dev/null; rm /dev/null; echo secret > /dev/null",
		"null is a pipe":     "umount -l /dev/null; rm /dev/null; mkfifo /dev/null",
		"terminal is a file": "umount -l /dev/pts; rmdir /dev/pts; mkdir /dev/pts; echo > /dev/pts/ptmx",
		"terminal is a link": "umount -l /dev/pts; rmdir /dev/pts; mkdir /dev/pts; ln -s ../zero /dev/pts/ptmx",
	} {
		t.Run(name, func(t *testing.T) {
			warmed(t)
			c := newContainer(t, sh(script+"; sleep 1000"), WithAddedCapabilities("CAP_SYS_ADMIN"), WithoutSeccomp())
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			exec := []ProcessOption{WithCommand("true")}
			if strings.HasPrefix(name, "terminal") {
				exec = append(exec, WithTerminal(3, 4))
			}
			// Until the script has come so far, Exec works.
			ctx, cancel := context.WithTimeout(t.Context(), testTime)
			defer cancel()
			for {
				p, err := c.Exec(ctx, exec...)
				if errors.Is(err, ErrForgedDevice) && errors.Is(err, unix.ENODEV) {
					return
				}
				if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
					t.Fatal(err)
				}
				if err == nil {
					if _, err := p.Wait(ctx); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// Limits on what a start itself needs hold for the command, however low.
func TestExecLowLimits(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	user := WithUser("root")
	if hasIDs(c) {
		user = WithUser("web")
	}
	for _, terminal := range []bool{false, true} {
		for _, n := range []uint64{0, 3, 20} {
			limits := []ProcessOption{WithRlimit(unix.RLIMIT_NOFILE, n, n), WithRlimit(unix.RLIMIT_NPROC, 1, 1)}
			opts := []Option{sh("ulimit -n")}
			for _, l := range limits {
				opts = append(opts, l)
			}
			if terminal {
				limits, opts = append(limits, WithTerminal(3, 4)), append(opts, WithTerminal(3, 4))
			}
			want := strconv.Itoa(int(n))
			if out, _ := execs(t, c, "ulimit -n", append(limits, user)...); strings.TrimSpace(out) != want {
				t.Errorf("%d: %q", n, out)
			}
			if out := output(t, opts...); strings.TrimSpace(out) != want {
				t.Errorf("start with %d: %q", n, out)
			}
		}
	}
}

// The OOM killer is told as the reason, also where a process shares its group with the container.
func TestExecOOMInTheContainersGroup(t *testing.T) {
	needCgroup(t, cgroups.Memory)
	noLeaks(t)
	c := runs(t, WithMemory(32<<20))
	if _, res := execs(t, c, "kill -9 $$"); res.Reason != ReasonSignaled {
		t.Errorf("killed: %+v", res)
	}
	if _, res := execs(t, c, "exec tail /dev/zero"); res.Reason != ReasonOOM {
		t.Errorf("%+v", res)
	}
	if _, res := execs(t, c, "kill -9 $$"); res.Reason != ReasonSignaled {
		t.Errorf("killed: %+v", res)
	}
}

// Nothing that is open in the process belongs to the host program.
func TestExecHoldsNoGroup(t *testing.T) {
	c := runs(t, WithNamespace(namespaces.PID, namespaces.Host()))
	p, err := c.Exec(testContext(t), WithCommand("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wait(testContext(t))
	defer p.Kill()
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	if err != nil && isRoot() {
		t.Fatal(err)
	}
	if err == nil && len(dir) != 3 {
		t.Errorf("open are %v", dir)
	}
}

// A process in a container that another program made has its terminal, limits and reasons too.
func TestExecInALoadedContainer(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "x", WithCommand("sleep", "1000"), WithHostname("inside"), WithMount(rootfs.TmpfsMount("/srv", 1<<20)))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	l := load(t, d, "x")
	var out buffer
	p, err := l.Exec(testContext(t), WithCommand("sh", "-c", "tty; stty size; hostname; exit 3"), WithTerminal(12, 34), WithStdout(&out))
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.Wait(testContext(t))
	if err != nil || res.ExitCode != 3 || out.String() != "/dev/pts/0\r\n12 34\r\ninside\r\n" {
		t.Errorf("%q, %v, %v", out.String(), res, err)
	}
	if out, _ := execs(t, l, "ulimit -n; umask", WithRlimit(unix.RLIMIT_NOFILE, 17, 17), WithUmask(0o27)); out != "17\n0027\n" {
		t.Errorf("%q", out)
	}
	if m, ok := l.Isolation().Get("memory limit"); !(ok && m.Status == Unavailable) && isRoot() {
		if _, res := execs(t, l, "exec tail /dev/zero", WithMemory(16<<20)); res.Reason != ReasonOOM {
			t.Errorf("%+v", res)
		}
	}
	if err := l.CopyIn(testContext(t), "/etc/passwd", "/srv/copied"); err != nil {
		t.Error(err)
	}
	if out, _ := execs(t, l, "stat -c %U /srv/copied"); out != "root\n" {
		t.Errorf("%q", out)
	}
	if err := l.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
