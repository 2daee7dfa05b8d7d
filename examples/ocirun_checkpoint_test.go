//go:build linux

package examples_test

import (
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
		for _, wrong := range [][]string{{"--page-server", "host", "PageServer"}, {"--lazy-pages", "--file-locks", "LazyPages"}, {"--status-fd", "77", "--status-fd"},
			{"--manage-cgroups-mode", "full", "--manage-cgroups-mode"}, {"--empty-ns", "user", "--empty-ns"}} {
			r.oci(t, append(append([]string{"checkpoint", "--image-path", images}, wrong[:2]...), "web")...).wantErr(t, 1, wrong[2])
		}
		if fault := faultOfCRIU(c); fault != "" {
			r.oci(t, "checkpoint", "--image-path", images, "web").wantErr(t, 1, `CRIU|criu`)
			r.oci(t, "state", "web").want(t, 0, `"status": "running"`)
			if c.root() {
				t.Skipf("no CRIU that fits this kernel: %s", fault)
			}
			return // for an ordinary user that answer is all there is
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

// faultOfCRIU says why the caller's containers cannot be written to disk here, in one line; "" if they can.
func faultOfCRIU(c caller) string {
	if !c.root() {
		return "it takes root"
	}
	out, err := exec.Command("criu", "check").CombinedOutput()
	switch line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); {
	case err != nil:
		return err.Error() + ": " + line
	case strings.Contains(string(out), "Error"):
		return line
	}
	return ""
}
