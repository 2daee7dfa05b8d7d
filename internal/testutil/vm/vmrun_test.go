//go:build linux

// Package vm_test tests vmrun, the runner of commands in virtual machines.
package vm_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// vmrun returns a function that prepares a run of vmrun for arch with a cache directory of the test's own. The
// kernel, the root filesystem and QEMU in it are links into the real cache, which must have been filled before:
// a test must not fetch some hundred megabytes unasked.
func vmrun(t *testing.T, arch string) (run func(args ...string) *exec.Cmd, cache string) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots virtual machines; not with -short")
	}
	if os.Getuid() != 0 {
		t.Skip("vmrun needs root")
	}
	filled := os.Getenv("CAISSON_VM_CACHE")
	if filled == "" {
		filled = "/var/cache/caisson-vm"
	}
	if kernels, _ := filepath.Glob(filepath.Join(filled, "kernel-"+arch+"-bookworm/image")); len(kernels) == 0 {
		t.Skipf("%s has no kernel for %s; run: vmrun --arch %s --setup", filled, arch, arch)
	}
	for _, script := range []string{"vmrun", "setup.sh", "guest/init", "guest/run"} {
		if _, err := os.ReadFile(script); err != nil { // also lets go test see when its cached result is stale
			t.Fatal(err)
		}
	}
	if _, stderr, code := result(t, exec.Command("./vmrun", "--arch", arch, "--setup")); code != 0 {
		t.Fatalf("vmrun --setup: exit code %d: %s", code, stderr) // what a change of the scripts asks for is made here, once
	}
	cache = t.TempDir()
	files, err := filepath.Glob(filepath.Join(filled, "*-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Symlink(f, filepath.Join(cache, filepath.Base(f))); err != nil {
			t.Fatal(err)
		}
	}
	return func(args ...string) *exec.Cmd {
		cmd := exec.Command("./vmrun", append([]string{"--arch", arch}, args...)...)
		cmd.Env = append(os.Environ(), "CAISSON_VM_CACHE="+cache)
		return cmd
	}, cache
}

// result runs cmd and returns what it wrote and its exit code.
func result(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// nothingLeft fails the test if a run left its directory behind.
func nothingLeft(t *testing.T, cache string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(cache, "run", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the cache: %q (%v)", left, err)
	}
}

var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

func TestRun(t *testing.T) {
	big := "head -c 5000000 /dev/zero | tr '\\0' x"
	tests := []struct {
		name    string
		options []string
		script  string
		stdout  string // "MACHINE" stands for uname -m
		stderr  string // part of it
		code    int
	}{
		{"output", nil, "uname -m; echo two >&2; exit 7", "MACHINE\n", "two\n", 7},
		{"root", nil, "id -u; stat -fc %T /sys/fs/cgroup; cat /proc/self/cgroup", "0\ncgroup2fs\n0::/\n", "", 0},
		{
			"user",
			[]string{"--user"},
			"id -u; cat /proc/self/cgroup; cd /sys/fs/cgroup/tester && mkdir a && rmdir a; unshare --map-root-user --map-auto id -u",
			"4000\n0::/tester/command\n0\n", "", 0,
		},
		{"much output", nil, big, strings.Repeat("x", 5000000), "", 0},
		{"signal", nil, "kill -9 $$", "", "", 137},
		{"variable", []string{"-e", "X=a 'b'"}, `echo "$X"`, "a 'b'\n", "", 0},
		{"small machine", []string{"--mem", "512", "--cpus", "1"}, "nproc", "1\n", "", 0},
		{"panic", nil, "echo c > /proc/sysrq-trigger; sleep 100", "", "sysrq triggered crash", 125},
		{"time limit", []string{"--timeout", "6"}, "sleep 100", "", "no result after 6 s", 124},
	}
	const everywhere = 3 // so many of them depend on the architecture; the others are run on one
	for arch, machine := range machines {
		t.Run(arch, func(t *testing.T) {
			run, cache := vmrun(t, arch)
			for i, tt := range tests {
				if i >= everywhere && arch != "arm64" {
					break
				}
				t.Run(tt.name, func(t *testing.T) {
					stdout, stderr, code := result(t, run(append(tt.options, "--", "sh", "-c", tt.script)...))
					if want := strings.ReplaceAll(tt.stdout, "MACHINE", machine); stdout != want {
						t.Errorf("stdout is %.200q, want %.200q", stdout, want)
					}
					if !strings.Contains(stderr, tt.stderr) {
						t.Errorf("stderr is %q, want %q in it", stderr, tt.stderr)
					}
					if code != tt.code {
						t.Errorf("exit code %d, want %d; stderr: %s", code, tt.code, stderr)
					}
					nothingLeft(t, cache)
				})
			}
		})
	}
}

// With --systemd the command is a service, and an ordinary user has a session with a systemd of their own.
func TestSystemd(t *testing.T) {
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skip("this machine has no systemd to boot: ", err)
	}
	arch := runtime.GOARCH
	run, _ := vmrun(t, arch)
	stdout, stderr, code := result(t, run("--systemd", "--", "sh", "-c", "cat /proc/1/comm /proc/self/cgroup; exit 3"))
	if stdout != "systemd\n0::/system.slice/vm.service\n" || code != 3 {
		t.Errorf("root: %q, %q, exit code %d", stdout, stderr, code)
	}
	stdout, stderr, code = result(t, run("--systemd", "--user", "--", "sh", "-c", "id -un; systemctl --user show -p ControlGroup | grep -c user@; exit 4"))
	if stdout != "tester\n1\n" || code != 4 {
		t.Errorf("user: %q, %q, exit code %d", stdout, stderr, code)
	}
}

// TestShare has the guest change a file of the module; this directory is below it.
func TestShare(t *testing.T) {
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			run, _ := vmrun(t, arch)
			dir := t.TempDir()
			stdout, stderr, code := result(t, run("--share", dir, "--", "sh", "-c", "test -e vmrun_test.go && echo hello > "+dir+"/file"))
			if code != 0 {
				t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
			}
			got, err := os.ReadFile(filepath.Join(dir, "file"))
			if err != nil || string(got) != "hello\n" {
				t.Errorf("the shared file is %q, %v", got, err)
			}
		})
	}
}

// TestEnded ends vmrun while the guest runs: by SIGTERM it cleans up itself; after SIGKILL QEMU ends too and the next
// run sweeps.
func TestEnded(t *testing.T) {
	run, cache := vmrun(t, "arm64")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		cmd := run("--", "sh", "-c", "echo up; sleep 100")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 3)
		if _, err := out.Read(line); err != nil {
			t.Fatalf("waiting for the guest: %v", err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		closed := time.AfterFunc(20*time.Second, func() { t.Errorf("%v: QEMU still holds the output", sig); out.Close() })
		for err == nil {
			_, err = out.Read(line)
		}
		closed.Stop()
		_ = cmd.Wait() // its exit code says no more than that it was ended
		if sig == syscall.SIGTERM {
			nothingLeft(t, cache)
		}
	}
	if _, stderr, code := result(t, run("--", "true")); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	nothingLeft(t, cache)
}

// TestUsage needs no virtual machine.
func TestUsage(t *testing.T) {
	tests := []struct {
		args   []string
		code   int
		stderr string
	}{
		{nil, 2, "vmrun [OPTIONS]"},
		{[]string{"--nonsense", "--", "true"}, 2, "vmrun [OPTIONS]"},
		{[]string{"--mem"}, 2, "vmrun [OPTIONS]"},
		{[]string{"--arch", "mips", "--", "true"}, 125, "--arch mips"},
		{[]string{"--share", "/does/not/exist", "--", "true"}, 125, "no such directory"},
	}
	for _, tt := range tests {
		_, stderr, code := result(t, exec.Command("./vmrun", tt.args...))
		if code != tt.code || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("vmrun %q: exit code %d, stderr %q; want %d, %q", tt.args, code, stderr, tt.code, tt.stderr)
		}
	}
}
