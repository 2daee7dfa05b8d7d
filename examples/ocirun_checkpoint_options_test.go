//go:build linux

package examples_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	t.Run("page-server", func(t *testing.T) {
		d := newDumped(t, "", nil)
		port := freePort(t)
		d.server(t, "page-server", "--images-dir", d.dir, "--address", "127.0.0.1", "--port", port)
		awaitTrue(t, "the server listens", func() bool { return listens(t, port) })
		d.checkpoint(t, "1", "--page-server", "127.0.0.1:"+port).want(t, 0)
		pages, err := filepath.Glob(d.dir + "/pagemap-*.img")
		if err != nil || len(pages) == 0 {
			t.Fatalf("the server has no memory: %v, %v", pages, err)
		}
		more, err := filepath.Glob(d.dir + "/pages-*.img")
		for _, p := range append(pages, more...) {
			err = errors.Join(err, os.Rename(p, filepath.Join(d.image("1"), filepath.Base(p))))
		}
		if err != nil {
			t.Fatal(err)
		}
		d.again(t, "1")
	})
	t.Run("lazy-pages", func(t *testing.T) {
		d := newDumped(t, "", nil)
		address := "127.0.0.1"
		port := freePort(t)
		ready, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer ready.Close()
		cmd := d.ociCommand(t, "checkpoint", "--image-path", d.image("1"), "--lazy-pages", "--page-server", address+":"+port, "--status-fd", "3", "web")
		cmd.ExtraFiles = []*os.File{w}
		errs := &strings.Builder{}
		cmd.Stderr = errs
		err = cmd.Start()
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := ready.Read(make([]byte, 1)); n != 1 {
			t.Fatalf("%v, %v: %s", err, cmd.Wait(), errs)
		}
		d.server(t, "lazy-pages", "--images-dir", d.image("1"), "--work-dir", d.dir, "--page-server", "--address", address, "--port", port)
		awaitTrue(t, "the server listens", func() bool {
			_, err := os.Stat(d.image("lazy-pages.socket"))
			return err == nil
		})
		d.again(t, "1", "--lazy-pages", "--work-path", d.dir)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, errs)
		}
		d.oci(t, "state", "web").wantErr(t, 1, `does not exist`)
	})
}

// server runs a server of CRIU's, which ends with the test.
func (d *dumped) server(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("criu", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the answer is that of Wait
		_ = cmd.Wait()
	})
}

// listens reports whether somebody listens at a port. To connect would be all that a page server waits for.
func listens(t *testing.T, port string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/net/tcp")
	n, perr := strconv.Atoi(port)
	if err = errors.Join(err, perr); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), fmt.Sprintf(":%04X 00000000:0000 0A", n))
}

// What CRIU does by itself is handed on to it.
func TestOcirunCheckpointHandsOn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, as CRIU does")
	}
	r := newRuntime(t, caller{0, ownDir(t, 0)}, func(s *specs.Spec) { s.Root.Readonly = false })
	criu := filepath.Join(r.dir, "criu") // writes down what it is asked for, and restores nothing
	said := criu + ".said"
	if err := os.WriteFile(criu, []byte("#!/bin/sh\necho \" $* \" > $0.said\n[ $1 != restore ]\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.oci(t, "--cgroup-manager", "disabled", "run", "--detach", "web").want(t, 0)
	for i, c := range []struct{ args, want []string }{
		{[]string{"--auto-dedup", "--file-locks"}, []string{"--auto-dedup", "--file-locks"}},
		{[]string{"--page-server", "[::1]:27"}, []string{"--page-server", "--address ::1 --port 27"}},
		{[]string{"--manage-cgroups-mode", "ignore"}, []string{"--manage-cgroups=ignore"}},
	} {
		args := slices.Concat([]string{"--criu", criu, "checkpoint", "--leave-running", "--image-path", fmt.Sprint(r.dir, "/", i)}, c.args, []string{"web"})
		r.oci(t, args...).want(t, 0)
		wantWords(t, said, c.want)
	}
	r.oci(t, "--criu", criu, "--cgroup-manager", "disabled", "restore", "--image-path", r.dir+"/2", "--work-path", r.dir, "--auto-dedup", "--lazy-pages",
		"--lsm-profile", "apparmor:own", "--lsm-mount-context", "a:b:c:s0", "again").wantErr(t, 1, `criu: exit status 1`)
	wantWords(t, said, []string{"--auto-dedup", "--lazy-pages", "--lsm-profile apparmor:own", "--lsm-mount-context a:b:c:s0", "--manage-cgroups=ignore"})
}

func wantWords(t *testing.T, path string, want []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	for _, w := range want {
		if err != nil || !strings.Contains(string(b), " "+w+" ") {
			t.Errorf("%s is not part of %q (%v)", w, b, err)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
