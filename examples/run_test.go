//go:build linux

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunDemonstration(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := c.run(t, "run")
		r.want(t, 0, `^Hello from a container\.`, `^I am root on caisson, and process 1\.`, `^/home holds 0 files, and the network has: lo$`)
		r.wantErr(t, 0, `^ +outside +inside$`, `^  hostname +\S+ +caisson$`, `^  processes +\d+ +1$`, `^  interfaces .* lo$`,
			`^  namespaces .*mount, pid, network, ipc, uts, cgroup`, `^  seccomp`, `^caisson: exit status 0 after `)
	})
}

func TestRunStatus(t *testing.T) {
	for _, tt := range []struct {
		name string
		code int
		args []string
	}{
		{"exit code", 7, []string{"sh", "-c", "exit 7"}},
		{"signal", 128 + 9, []string{"-timeout", "200ms", "sleep", "20"}},
		{"not executable", 126, []string{"/etc/passwd"}},
		{"a directory", 126, []string{"/etc"}},
		{"not found", 127, []string{"no-such-command"}},
		{"no such rootfs", 125, []string{"-rootfs", "/nonexistent", "true"}},
		{"unknown flag", 125, []string{"-nonsense", "true"}},
		{"unknown user", 125, []string{"-user", "no-such-user", "true"}},
		{"bad size", 125, []string{"-memory", "64X", "true"}},
		{"bad network", 125, []string{"-net", "moon", "true"}},
		{"unknown mount field", 125, []string{"-mount", "type=bind,src=/etc,dst=/mnt,rw2", "true"}},
		{"writable host", 125, []string{"-writable", "true"}},
		{"help", 0, []string{"-h"}},
		{"explain", 0, []string{"-explain", "no-such-command"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asEach(t, func(t *testing.T, c caller) {
				if r := c.run(t, "run", append([]string{"-q"}, tt.args...)...); r.code != tt.code {
					t.Errorf("want exit status %d: %v", tt.code, r)
				} else if tt.code >= 125 && tt.code <= 127 && r.stderr == "" {
					t.Error("nothing was said")
				}
			})
		})
	}
}

func TestRunFlags(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		if err := os.WriteFile(filepath.Join(c.dir, "note"), []byte("from outside\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name string
			args []string
			want string
		}{
			{"environment", []string{"-e", "A=1", "-env", "HOME", "env"}, "^A=1$"},
			{"workdir", []string{"-w", "/usr/bin", "pwd"}, "^/usr/bin$"},
			{"hostname", []string{"-hostname", "box", "hostname"}, "^box$"},
			{"id", []string{"-id", "web", "hostname"}, "^web$"},
			{"user", []string{"-u", "0:0", "id", "-u"}, "^0$"},
			{"volume", []string{"-v", c.dir + ":/mnt/d:ro", "sh", "-c", "cat /mnt/d/note; touch /mnt/d/x || echo refused"}, "^from outside\nrefused$"},
			{"relative volume", []string{"-v", ".:/mnt/d", "cat", "/mnt/d/note"}, "^from outside$"},
			{"mount", []string{"-mount", "type=bind,source=" + c.dir + ",target=/mnt/d,readonly", "cat", "/mnt/d/note"}, "^from outside$"},
			{"tmpfs", []string{"-tmpfs", "/mnt/t:size=1M", "df", "-k", "--output=size", "/mnt/t"}, "^ *1024$"},
			{"read-only", []string{"-read-only", "sh", "-c", "touch /x || echo refused"}, "^refused$"},
			{"no capabilities", []string{"-cap-drop", "ALL", "grep", "CapEff", "/proc/self/status"}, `CapEff:\s0+$`},
			{"one capability", []string{"-cap-drop", "all", "-cap-add", "chown", "grep", "CapEff", "/proc/self/status"}, `CapEff:\s0+1$`},
			{"host network", []string{"-net", "host", "readlink", "/proc/self/ns/net"}, hostNet(t)},
			{"disk", []string{"-disk", "1M", "sh", "-c", "dd if=/dev/zero of=/big bs=64k 2>&1"}, "No space left"},
			{"output", []string{"-output-limit", "1k", "sh", "-c", "while :; do echo more; done"}, "^more$"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := c.run(t, "run", append([]string{"-q"}, tt.args...)...)
				match(t, "standard output of\n"+r.String(), r.stdout, []string{tt.want})
			})
		}
	})
}

func hostNet(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return `^net:\[` + strings.Trim(name, "net:[]") + `\]$`
}

func TestRunStdin(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		cmd := c.command(t, "run", "-q", "-i", "cat")
		cmd.Stdin = strings.NewReader("through and through")
		finish(t, cmd).want(t, 0, "^through and through$")

		cmd = c.command(t, "run", "-q", "cat")
		cmd.Stdin = strings.NewReader("not wanted")
		if r := finish(t, cmd); r.code != 0 || r.stdout != "" {
			t.Errorf("without -i: %v", r)
		}
	})
}

// TestRunTerminal runs a shell at a terminal, as a user who types the command alone does.
func TestRunTerminal(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("script(1), which makes the terminal, is missing")
	}
	asEach(t, func(t *testing.T, c caller) {
		cmd := c.command(t, "run")
		cmd.Path, cmd.Args = "/usr/bin/script", []string{"script", "-qec", "stty rows 33 cols 77; " + filepath.Join(bin, "run"), "/dev/null"}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out lockedBuffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.await(t, "# ") // the prompt
		if _, err := in.Write([]byte("stty size; tty; exit 5\n")); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 5 {
			t.Errorf("exit status %d:\n%s", code, out.String())
		}
		match(t, "terminal", strings.ReplaceAll(out.String(), "\r", ""), []string{"33 77$", "^/dev/pts/0$"})
	})
}

func TestRunLimits(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		needLimits(t, c)
		r := c.run(t, "run", "-memory", "16M", "sh", "-c", "x=x; while :; do x=$x$x; done")
		r.wantErr(t, 137, `^  limits .*memory 16 MiB`, `^caisson: out of memory after`)
		c.run(t, "run", "-q", "-pids", "8", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done").wantErr(t, 2, "fork")
		c.run(t, "run", "-cpu-time", "200ms", "sh", "-c", "while :; do :; done").wantErr(t, 137, "^caisson: CPU time")
	})
}

// TestRunSignals: the command gets what its container's owner gets; a deaf one is killed by the second signal.
func TestRunSignals(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		cmd := c.command(t, "run", "-q", "sh", "-c", "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
		if code, out := interrupt(t, cmd, syscall.SIGTERM); code != 9 || !strings.Contains(out, "caught") {
			t.Errorf("exit status %d, output %q", code, out)
		}
		cmd = c.command(t, "run", "-q", "sh", "-c", "trap : INT; echo ready; while :; do sleep 0.05; done")
		if code, _ := interrupt(t, cmd, syscall.SIGINT, syscall.SIGINT); code != 137 {
			t.Errorf("exit status %d after two SIGINT, want 137", code)
		}
	})
}

// interrupt waits until the command says that it is ready, sends the signals and returns how it ended.
func interrupt(t *testing.T, cmd *exec.Cmd, signals ...syscall.Signal) (int, string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, _ := out.Read(buf)
	text := string(buf[:n])
	for _, s := range signals {
		_ = cmd.Process.Signal(s)
		time.Sleep(100 * time.Millisecond)
	}
	ended := make(chan struct{})
	defer close(ended)
	if last := len(signals) - 1; last > 0 {
		go func() { // two that come before the first is handled are one
			for {
				select {
				case <-ended:
					return
				case <-time.After(time.Second):
					_ = cmd.Process.Signal(signals[last])
				}
			}
		}()
	}
	for {
		n, err := out.Read(buf)
		text += string(buf[:n])
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), text
}
