//go:build linux

package examples_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestHello(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "hello").want(t, 0, "^hello from process 1 on caisson$")
	})
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name, script, want string
		limits             bool // the verdict needs a cgroup
		flags              []string
	}{
		{"accepted", "read n; echo $((n*2))", "accepted", false, nil},
		{"wrong", "echo 7", "wrong answer", false, nil},
		{"crash", "exit 3", "crashed (exit status 3)", false, nil},
		{"slow", "sleep 20", "timed out", false, []string{"-wall", "1s"}},
		{"output", "while :; do echo 0123456789abcdef; done", "output limit", false, nil},
		{"no writing", "echo x >/x && echo 6", "crashed", false, nil},
		{"busy", "while :; do :; done", "CPU time limit", true, []string{"-cpu", "200ms"}},
		{"memory", "x=x; while :; do x=$x$x; done", "out of memory", true, nil},
		{"fork bomb", "f() { f | f & }; f; wait; sleep 20", "", true, []string{"-wall", "2s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asEach(t, func(t *testing.T, c caller) {
				if tt.limits {
					needLimits(t, c)
				}
				file := filepath.Join(c.dir, "solution")
				if err := os.WriteFile(file, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				os.Chown(file, c.uid, c.uid)
				r := c.run(t, "judge", append(tt.flags, "-in", "3", "-want", "6", "-best-effort", file)...)
				r.want(t, 0)
				var v struct{ Verdict string }
				if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || !strings.HasPrefix(v.Verdict, tt.want) {
					t.Errorf("want %q (%v): %.2000v", tt.want, err, r)
				}
				if tt.name == "fork bomb" && v.Verdict == "accepted" {
					t.Error("accepted")
				}
			})
		})
	}
}

func TestCIStep(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		if err := os.WriteFile(filepath.Join(c.dir, "input"), []byte("ore\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		if !c.root() {
			shared(t, c)
		}
		r := c.run(t, "cistep", "cat input; sleep 0.2; echo metal >output; echo CI=$CI HOME=$HOME; pwd >&2")
		r.want(t, 0, `^ +\d+\.\d{3}s  ore$`, `^ +\d+\.\d{3}s  CI=true HOME=/tmp$`, `s  /workspace$`)
		if out, err := os.ReadFile(filepath.Join(c.dir, "output")); err != nil || string(out) != "metal\n" {
			t.Errorf("the workspace has %q, %v", out, err)
		}
		c.run(t, "cistep", "false; echo not reached").wantErr(t, 1, "^step failed: exit status 1$")
		c.run(t, "cistep", "-timeout", "200ms", "sleep 20").wantErr(t, 137, "^step failed: timed out")
		c.run(t, "cistep", "-workspace", "/nonexistent", "true").wantErr(t, 1, "no such file")
	})
}

// shared lets root inside, who as root's child is another user outside, write to the caller's directory.
func shared(t *testing.T, c caller) {
	t.Helper()
	if err := os.Chmod(c.dir, 0o777); err != nil {
		t.Fatal(err)
	}
}

func TestService(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		cmd := c.command(t, "service", "-retry", "50ms", "-grace", "5s", "--",
			"sh", "-c", `trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done`)
		var log, out lockedBuffer
		cmd.Stderr, cmd.Stdout = &log, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.await(t, "up\n")
		_ = cmd.Process.Signal(syscall.SIGHUP)
		out.await(t, "bye\nup\n")
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		out.await(t, "bye\nup\nbye\n")
		match(t, "log", log.String(), []string{"started, process", "restarting", "stopping", "ended: exit status 0"})
	})
}

// TestServiceCrash: a server that fails is started again, and a deaf one is killed.
func TestServiceCrash(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		cmd := c.command(t, "service", "-retry", "50ms", "-grace", "100ms", "--", "sh", "-c",
			`trap "" TERM; echo up; sleep 0.2; exit 3`)
		var log, out lockedBuffer
		cmd.Stderr, cmd.Stdout = &log, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.await(t, "up\nup\nup\n")
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		match(t, "log", log.String(), []string{"ended: exit status 3", "ended: stopped"})
	})
}

// TestOCIBundle runs a bundle whose root filesystem is empty but for the host's /usr.
func TestOCIBundle(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		root := filepath.Join(c.dir, "rootfs")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
			if _, err := os.Stat("/usr/" + name); err == nil {
				if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, f := range []string{c.dir, root} {
			if err := os.Chown(f, c.uid, c.uid); err != nil {
				t.Fatal(err)
			}
		}
		if fi, err := os.Lstat("/bin"); err != nil || fi.Mode()&os.ModeSymlink == 0 {
			t.Skip("/bin is not a link to /usr/bin: the bundle's programs would not find their libraries")
		}
		bundle(t, c, "")
		c.run(t, "ocibundle", c.dir).want(t, 3, "^box$", "^A=1$", "^/usr/share$", `^CapEff:\s0000000000000001$`, "^open files 99$")
		c.run(t, "ocibundle", "-explain", c.dir).want(t, 0, "execve")
		bundle(t, c, `"windows": {"layerFolders": []}, "solaris": {},`)
		c.run(t, "ocibundle", c.dir).wantErr(t, 125, "config.json: windows: ", "config.json: solaris: ")
		bundle(t, c, `"hoks": {},`)
		c.run(t, "ocibundle", c.dir).wantErr(t, 125, "hoks")
	})
}

func bundle(t *testing.T, c caller, extra string) {
	t.Helper()
	config := `{` + extra + `"ociVersion": "1.2.0", "hostname": "box",
		"process": {"args": ["sh", "-c", "hostname; env; pwd; grep CapEff /proc/self/status; echo open files $(ulimit -n); exit 3"],
			"env": ["A=1"], "cwd": "/usr/share", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
			"capabilities": {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]},
			"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}]},
		"root": {"path": "rootfs"},
		"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nosuid", "nodev"]},
			{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=1777", "nosuid"]}],
		"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
			"resources": {"devices": [{"allow": false, "access": "rwm"}]},
			"maskedPaths": ["/proc/keys"], "readonlyPaths": ["/proc/sys"]}}`
	if err := os.WriteFile(filepath.Join(c.dir, "config.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}
