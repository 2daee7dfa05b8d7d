//go:build linux

package examples_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// daemon is the service of an engine. It has processes, mounts, a network and /run of its own: what it does to the machine
// ends with its first process, and no other test sees it.
type daemon struct {
	dir  string
	init *exec.Cmd
	log  string
}

// box is what the first process of a daemon does before the daemon. It reaps what the daemon leaves behind.
const box = `
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
"$@" &
wait $!
sleep 1000000 & wait`

// startDaemon runs a command below a directory.
func startDaemon(t *testing.T, dir string, command ...string) *daemon {
	t.Helper()
	d := &daemon{dir: dir, log: filepath.Join(dir, "log")}
	out, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	d.init = exec.Command("sh", append([]string{"-ec", box, "box"}, command...)...)
	d.init.Dir, d.init.Stdout, d.init.Stderr = dir, out, out
	d.init.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	d.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := d.init.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.init.Process.Kill() // and all that it started, with their mounts
		_ = d.init.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(d.log)
			t.Logf("the log of %s ends with:\n%s", command[0], b[max(0, len(b)-8<<10):])
		}
	})
	return d
}

// command prepares a program beside the daemon.
func (d *daemon) command(args ...string) *exec.Cmd {
	pid := strconv.Itoa(d.init.Process.Pid)
	cmd := exec.Command("nsenter", append([]string{"-t", pid, "-m", "-p", "-n", "-i", "--wd=" + d.dir}, args...)...)
	cmd.Env = d.init.Env
	return cmd
}

// row is a command of an engine's client, and what comes of it.
type row struct {
	feature, args, script string
	code                  int
	says                  string
}

// follow runs rows in their order. The first one is what all others need.
func follow(t *testing.T, rows []row, command func(args []string) *exec.Cmd) {
	for i, f := range rows {
		ok := engineFeature(t, f.feature, func(t *testing.T) {
			args := strings.Fields(f.args)
			if f.script != "" {
				args = append(args, "sh", "-c", f.script)
			}
			feature(f).check(t, args, func() result { return (&runtimeOf{}).finishLeaving(t, command(args)) })
		})
		if !ok && i == 0 {
			t.Fatal("nothing works")
		}
	}
}

// needEngine skips where a program of an engine is missing.
func needEngine(t *testing.T, engine string, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("needs root: %s is a service of the machine", engine)
	}
	for _, p := range append(programs, "nsenter", "ip") {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed: no %s", engine, p)
		}
	}
}

// busyboxImage writes an image with a shell, as docker save does. Without a command it sleeps.
func busyboxImage(t *testing.T, dir, name string) string {
	t.Helper()
	root := filepath.Join(dir, "busybox")
	busyboxRoot(t, root)
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	layer, err := exec.Command("tar", "-C", root, "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/sleep", "100000"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "image.tar")
	data := tarball(t, []string{"c.json", "1/layer.tar", "manifest.json"}, map[string][]byte{"c.json": config, "1/layer.tar": layer,
		"manifest.json": fmt.Appendf(nil, `[{"Config":"c.json","RepoTags":[%q],"Layers":["1/layer.tar"]}]`, name)})
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
