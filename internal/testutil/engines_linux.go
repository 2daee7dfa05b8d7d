package testutil

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Engine runs scripts that use podman or buildah as root, with all their files below a directory.
type Engine struct {
	t     testing.TB
	dir   string
	group string
}

// NewEngine skips the test where a program is missing, for ordinary users, and with -short.
func NewEngine(t testing.TB, programs ...string) *Engine {
	t.Helper()
	if testing.Short() {
		t.Skip("not with -short: other engines")
	}
	NeedRoot(t)
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("no " + p + " on this machine: install the package " + p)
		}
	}
	e := &Engine{t: t, dir: t.TempDir()}
	e.group = fmt.Sprintf("caisson-engine-%d-%d", os.Getpid(), time.Now().UnixNano())
	conf := "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n" +
		"[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nlock_type = \"file\"\n"
	check(t, os.WriteFile(filepath.Join(e.dir, "containers.conf"), []byte(conf), 0o600))
	check(t, os.MkdirAll(filepath.Join(e.dir, ".config/containers"), 0o700))
	check(t, os.WriteFile(filepath.Join(e.dir, ".config/containers/policy.json"), []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600))
	check(t, os.WriteFile(filepath.Join(e.dir, "registries.conf"), nil, 0o600))
	return e
}

// scriptHead gives an engine what it would share with others of the machine: what it leaves there goes with the mount namespace. $GROUP is
// for --cgroup-parent. Images are kept by copying, since an overlay could stay mounted.
const scriptHead = `set -eu
for d in /run /dev/shm /var/tmp; do mount -t tmpfs tmpfs $d; done
podman() { command podman --root "$HOME/root" --runroot /run/root --tmpdir /run/tmp --storage-driver vfs --runtime "$(command -v runc)" "$@"; }
buildah() { command buildah --root "$HOME/root" --runroot /run/root --storage-driver vfs "$@"; }
started() { podman run --cgroup-parent "/$GROUP" --network none "$@"; }
`

// Run runs a script of sh, in which podman and buildah are functions and "started" is podman run without a network, and returns what it
// wrote. It has mount and PID namespaces of its own, so that no process outlives it, and state that lasts until the test ends.
func (e *Engine) Run(script string, args ...string) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Time(5*time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", scriptHead + script, "sh"}, args...)...)
	cmd.Dir = e.dir
	cmd.Env = append(os.Environ(), "HOME="+e.dir, "XDG_RUNTIME_DIR=/run", "TMPDIR=/var/tmp", "GROUP="+e.group, "CONTAINERS_CONF="+filepath.Join(e.dir, "containers.conf"),
		"CONTAINERS_REGISTRIES_CONF="+filepath.Join(e.dir, "registries.conf"))
	out, err := cmd.CombinedOutput()
	e.removeGroups()
	if err != nil {
		e.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// removeGroups removes the cgroups that the script's containers had, in which no process is left.
func (e *Engine) removeGroups() {
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		roots, _ := filepath.Glob(filepath.Join(pattern, e.group))
		for _, root := range roots {
			var dirs []string
			_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for i := len(dirs) - 1; i >= 0; i-- {
				if err := os.Remove(dirs[i]); err != nil {
					e.t.Errorf("a cgroup of an engine stays: %v", err)
				}
			}
		}
	}
}
