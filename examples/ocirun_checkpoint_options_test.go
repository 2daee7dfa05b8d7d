//go:build linux

package examples_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// dumped is a container for checkpoints, with a directory for them.
type dumped struct {
	*runtimeOf
	dir string
}

// newDumped runs a script, of which the words "up" on its standard output tell that it has come so far. It then counts in /tmp/count.
func newDumped(t *testing.T, script string, change func(*specs.Spec)) *dumped {
	t.Helper()
	r := newRuntime(t, caller{0, ownDir(t, 0)}, func(s *specs.Spec) {
		s.Root.Readonly = false
		s.Process.Args = []string{"sh", "-c", script + "\ni=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.1; done"}
		if change != nil {
			change(s)
		}
	})
	d := &dumped{r, filepath.Join(r.dir, "images")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.oci(t, "run", "--detach", "web").want(t, 0)
	d.counts(t, "web")
	return d
}

// counts waits until a container has counted on.
func (d *dumped) counts(t *testing.T, id string) {
	t.Helper()
	read := func() string {
		b, _ := os.ReadFile(filepath.Join(d.bundle, "rootfs/tmp/count"))
		return string(b)
	}
	d.oci(t, "state", id).want(t, 0, `"status": "running"`)
	first := read()
	awaitTrue(t, id+" counts", func() bool { return read() != first })
}

func (d *dumped) image(name string) string { return filepath.Join(d.dir, name) }

// again lets a container go on from a checkpoint, to its end.
func (d *dumped) again(t *testing.T, image string, args ...string) {
	t.Helper()
	d.goOn(t, image, args...)
	d.oci(t, "kill", "again", "9").want(t, 0)
	awaitStatus(t, d.runtimeOf, "again", specs.StateStopped)
	d.oci(t, "delete", "again").want(t, 0)
}

func (d *dumped) goOn(t *testing.T, image string, args ...string) {
	t.Helper()
	d.oci(t, slices.Concat([]string{"restore", "--detach", "--bundle", d.bundle, "--image-path", d.image(image)}, args, []string{"again"})...).want(t, 0)
	d.counts(t, "again")
}

func (d *dumped) checkpoint(t *testing.T, image string, args ...string) result {
	t.Helper()
	return d.oci(t, slices.Concat([]string{"checkpoint", "--image-path", d.image(image)}, args, []string{"web"})...)
}

// A container goes on while it is written, and afterwards if that is asked for; a checkpoint can follow others, and be used again.
func TestOcirunCheckpointOptions(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, as CRIU does")
	}
	if fault := faultOfCRIU(caller{}); fault != "" {
		t.Skipf("no CRIU that fits this kernel: %s", fault)
	}
	t.Run("leave-running", func(t *testing.T) {
		d := newDumped(t, "", nil)
		work := filepath.Join(d.runtimeOf.dir, "work")
		d.checkpoint(t, "1", "--leave-running", "--work-path", work).want(t, 0)
		d.counts(t, "web")
		if _, err := os.Stat(filepath.Join(work, "dump.log")); err != nil {
			t.Error(err)
		}
		d.checkpoint(t, "1").wantErr(t, 1, `not empty`)
		d.oci(t, "delete", "--force", "web").want(t, 0)
		d.again(t, "1")
		d.again(t, "1") // a checkpoint can be used again
	})
	t.Run("pre-dump", func(t *testing.T) {
		d := newDumped(t, "", nil)
		d.checkpoint(t, "0", "--pre-dump").want(t, 0)
		d.counts(t, "web")
		d.checkpoint(t, "1", "--pre-dump", "--parent-path", "../0").want(t, 0)
		d.checkpoint(t, "2", "--parent-path", "../1").want(t, 0)
		d.oci(t, "restore", "--detach", "--bundle", d.bundle, "--image-path", d.image("0"), "again").wantErr(t, 1, `checkpoint`)
		d.again(t, "2")
	})
}
