//go:build linux

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A container that was made by create and start is written to disk, and goes on from there in another. Where CRIU does not fit the kernel, or the
// caller, that is said, and the container is not disturbed.
func TestOcirunCheckpoint(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) {
			s.Root.Readonly = false
			s.Process.Args = []string{"sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.1; done"}
		})
		r.oci(t, "create", "--bundle", r.bundle, "web").want(t, 0)
		r.oci(t, "start", "web").want(t, 0)
		images := filepath.Join(r.dir, "images")
		for _, wrong := range [][]string{{"--page-server", "host:1"}, {"--lazy-pages"}, {"--manage-cgroups-mode", "strict"}, {"--empty-ns", "user"}} {
			r.oci(t, append(append([]string{"checkpoint", "--image-path", images}, wrong...), "web")...).wantErr(t, 1, wrong[0])
		}
		if !fitsCRIU(c) {
			r.oci(t, "checkpoint", "--image-path", images, "web").wantErr(t, 1, `CRIU|criu`)
			r.oci(t, "state", "web").want(t, 0, `"status": "running"`)
			return
		}
		r.oci(t, "checkpoint", "--leave-running", "--image-path", images+"0", "web").want(t, 0)
		r.oci(t, "state", "web").want(t, 0, `"status": "running"`)
		r.oci(t, "checkpoint", "--image-path", images, "web").want(t, 0)
		r.oci(t, "state", "web").wantErr(t, 1, `does not exist`)
		r.oci(t, "restore", "--detach", "--image-path", images, "--bundle", r.bundle, "again").want(t, 0)
		r.oci(t, "exec", "again", "cat", "/tmp/count").want(t, 0, `^[0-9]{1,5}\n$`)
		r.oci(t, "kill", "again", "9").want(t, 0)
		awaitStatus(t, r, "again", specs.StateStopped)
	})
}

func fitsCRIU(c caller) bool {
	out, err := exec.Command("criu", "check").CombinedOutput()
	return c.root() && os.Geteuid() == 0 && err == nil && !strings.Contains(string(out), "Error")
}
