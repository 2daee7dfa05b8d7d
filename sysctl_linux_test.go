package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// sysctlsEnv allows tests that change settings of the whole machine.
const sysctlsEnv = "CAISSON_TEST_SYSCTLS"

func init() { roles["start"] = startRole }

// started is what startRole reports.
type started struct {
	Output string
	Way    string // how the stage's executable was made
	Err    string
	Remedy string
	Errno  unix.Errno
}

// startRole starts a container on the root filesystem that its argument names, in a process that has not started any.
func startRole() {
	var s started
	c, err := New(WithRootfs(rootfs.Dir(os.Getenv("CAISSON_TEST_DIR"))), WithCommand("/bin/echo", "it runs"))
	if err == nil {
		var out []byte
		out, err = c.CombinedOutput(context.Background())
		s.Output = string(out)
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		s.Err = err.Error()
		errors.As(err, &s.Errno)
		if e := (*Error)(nil); errors.As(err, &e) {
			s.Remedy = e.Remedy
		}
	}
	s.Way, _ = stage.Probe()
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startAs starts a container in a process of its own, as uid.
func startAs(t *testing.T, uid uint32) started {
	t.Helper()
	return startBy(t, testutil.Role("start"), uid)
}

// startBy has cmd, which executes this test binary in the role "start", start a container as user uid.
func startBy(t *testing.T, cmd *exec.Cmd, uid uint32) started {
	t.Helper()
	dir := testutil.Busybox(t)
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Env = append(cmd.Env, "CAISSON_TEST_DIR="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var s started
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("as user %d: %+v", uid, s)
	return s
}

// setSysctl changes a setting for the time of the test.
func setSysctl(t *testing.T, name, value string) {
	t.Helper()
	testutil.NeedRoot(t)
	if os.Getenv(sysctlsEnv) != "1" {
		t.Skip("changes settings of the whole machine: only with " + sysctlsEnv + "=1, in a virtual machine")
	}
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel has no sysctl " + name)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
}

// Where user namespaces are switched off, an ordinary user is told by which switch. Root starts containers all the same.
func TestUserNamespacesSwitchedOff(t *testing.T) {
	for _, tt := range []struct {
		sysctl string
		errno  unix.Errno
		remedy string
	}{
		{"kernel.unprivileged_userns_clone", unix.EPERM, "kernel.unprivileged_userns_clone=1"},
		{"user.max_user_namespaces", unix.ENOSPC, "user.max_"},
	} {
		t.Run(tt.sysctl, func(t *testing.T) {
			setSysctl(t, tt.sysctl, "0")
			s := startAs(t, 65534)
			if s.Errno != tt.errno || !strings.Contains(s.Remedy, tt.remedy) {
				t.Errorf("error %q (%v) with remedy %q; want %v and %q", s.Err, s.Errno, s.Remedy, tt.errno, tt.remedy)
			}
			if s := startAs(t, 0); s.Output != "it runs\n" {
				t.Errorf("as root: %q %s", s.Output, s.Err)
			}
		})
	}
}

// Where memory files may not be executed (Linux 6.3), the stage's executable is made in another way.
func TestMemfdNoexec(t *testing.T) {
	for value, memfd := range map[string]bool{"1": true, "2": false} {
		t.Run(value, func(t *testing.T) {
			setSysctl(t, "vm.memfd_noexec", value)
			for _, uid := range []uint32{0, 65534} {
				s := startAs(t, uid)
				if s.Output != "it runs\n" || (s.Way == "memfd") != memfd || s.Way == "" {
					t.Errorf("as user %d with vm.memfd_noexec=%s: %q by %q: %s", uid, value, s.Output, s.Way, s.Err)
				}
			}
			// This process has started containers before, perhaps through memory files.
			if got := output(t, WithCommand("/bin/echo", "it runs")); got != "it runs" {
				t.Errorf("%q", got)
			}
		})
	}
}
