package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runtime is one that is judged.
type runtime struct {
	name, path string
	base       string // a tmpfs of its own, shared, as the mounts of most machines are
	trials     int
}

func newRuntime(name, path string) (*runtime, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make the mounts private: %w", err)
	}
	base, err := os.MkdirTemp("", "caisson-conformance-")
	if err != nil {
		return nil, err
	}
	r := &runtime{name: name, path: path, base: base}
	if err := errors.Join(r.prepare(), r.hideHybrid()); err != nil {
		return nil, err
	}
	return r, nil
}

// prepare makes what the checks share: a file system, and this program as the probe in it.
func (r *runtime) prepare() error {
	if err := unix.Mount("tmpfs", r.base, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	if err := unix.Mount("", r.base, "", unix.MS_SHARED, ""); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(r.probe(), b, 0o755)
}

func (r *runtime) probe() string { return filepath.Join(r.base, "probe") }

// hideHybrid lets crun work on a hybrid machine: it refuses all containers where the v2 tree has a controller. What it sees is
// changed in this mount namespace alone.
func (r *runtime) hideHybrid() error {
	const file = "/sys/fs/cgroup/unified/cgroup.controllers"
	if b, err := os.ReadFile(file); filepath.Base(r.path) != "crun" || err != nil || len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	empty := filepath.Join(r.base, "empty")
	if err := os.WriteFile(empty, nil, 0o444); err != nil {
		return err
	}
	return unix.Mount(empty, file, "", unix.MS_BIND, "")
}

func (r *runtime) close() {
	removeGroups(groupName())
	_ = unix.Unmount(r.base, unix.MNT_DETACH)
	_ = os.Remove(r.base)
}

func (r *runtime) version() string {
	out, err := exec.Command(r.path, "--version").Output()
	if f := strings.Fields(string(out)); err == nil && len(f) >= 3 && f[1] == "version" {
		return f[2]
	}
	return ""
}

// judge runs one check.
func (r *runtime) judge(c check) (res result) {
	res = result{Section: c.section, Level: c.level, Check: c.name, Outcome: pass}
	if r.name == "ocirun" {
		res.Reason = c.reason()
	}
	r.trials++
	t := &trial{runtime: r, dir: filepath.Join(r.base, fmt.Sprint(r.trials)), id: fmt.Sprintf("caisson-conf-%d-%d", os.Getpid(), r.trials)}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case verdict:
			res.Outcome, res.Seen = v.outcome, strings.NewReplacer(t.dir, "DIR", r.base, "BASE", t.id, "ID").Replace(v.seen)
		default:
			panic(v)
		}
	}()
	defer t.close()
	t.must(t.begin())
	c.run(t)
	return res
}

// trial is one check of one runtime, with a bundle of its own.
type trial struct {
	*runtime
	dir, id string
	spec    *specs.Spec
	made    []string // containers that there may be
	undo    []func()
}

func (t *trial) begin() error {
	for _, d := range []string{"bundle/rootfs/proc", "bundle/rootfs/dev", "bundle/rootfs/sys", "bundle/rootfs/tmp", "bundle/rootfs/mnt", "bundle/rootfs/etc", "log"} {
		if err := os.MkdirAll(filepath.Join(t.dir, d), 0o755); err != nil {
			return err
		}
	}
	t.spec = example()
	return errors.Join(os.Chmod(t.root("tmp"), 0o1777), os.Link(t.probe(), t.root("probe")))
}

func (t *trial) close() {
	for _, id := range t.made {
		t.oci("delete", "--force", id)
	}
	for _, f := range t.undo {
		f()
	}
	_ = os.RemoveAll(t.dir)
}

// bundle and root are paths in the bundle and in the root filesystem.
func (t *trial) bundle(elem ...string) string {
	return filepath.Join(append([]string{t.dir, "bundle"}, elem...)...)
}

func (t *trial) root(elem ...string) string {
	return filepath.Join(append([]string{t.dir, "bundle/rootfs"}, elem...)...)
}

// write writes config.json.
func (t *trial) write() {
	b, err := json.Marshal(t.spec)
	t.must(err)
	t.writeRaw(b)
}

func (t *trial) writeRaw(b []byte) { t.must(os.WriteFile(t.bundle("config.json"), b, 0o644)) }

// said is how a command of the runtime ended.
type said struct {
	out, errs string
	code      int
}

func (s said) String() string {
	text := strings.Join(strings.Fields(s.errs), " ")
	if len(text) > 160 {
		text = text[:160]
	}
	return fmt.Sprintf("exit status %d: %s", s.code, text)
}

// oci runs a command of the runtime. What it writes goes to files, since a container that it leaves has the same streams.
func (t *trial) oci(args ...string) said { return t.ociEnv(nil, args...) }

func (t *trial) ociEnv(env []string, args ...string) said {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.path, append([]string{"--root", filepath.Join(t.base, "state")}, args...)...)
	cmd.Dir, cmd.Env = t.bundle(), append(os.Environ(), env...)
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(t.dir, "out")
		t.must(err)
		defer f.Close()
		files[i] = f
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	var ee *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &ee) {
		t.failf("%v", err)
	}
	var text [2]string
	for i, f := range files {
		b, err := os.ReadFile(f.Name())
		t.must(err)
		text[i] = string(b)
	}
	return said{text[0], text[1], cmd.ProcessState.ExitCode()}
}

// ok runs a command that is to succeed.
func (t *trial) ok(args ...string) said {
	s := t.oci(args...)
	if s.code != 0 {
		t.failf("%s: %v", args[0], s)
	}
	return s
}

// refuses runs a command that is to fail.
func (t *trial) refuses(args ...string) said {
	s := t.oci(args...)
	if s.code == 0 {
		t.failf("%s: no error", strings.Join(args, " "))
	}
	return s
}

// report runs the container, whose probe carries out what it is asked to and reports what it is.
func (t *trial) report(asked ...string) *report {
	t.spec.Process.Args = append([]string{"/probe", "report"}, asked...)
	t.write()
	t.made = append(t.made, t.id)
	return t.parse(t.ok("run", "--bundle", t.bundle(), t.id))
}

func (t *trial) parse(s said) *report {
	r := &report{}
	if err := json.Unmarshal([]byte(s.out), r); err != nil {
		t.failf("the probe said %.200q, %v: %v", s.out, err, s)
	}
	return r
}

// runs runs the container with a command of the probe and returns its exit status.
func (t *trial) runs(args ...string) said {
	t.spec.Process.Args = append([]string{"/probe"}, args...)
	t.write()
	t.made = append(t.made, t.id)
	return t.oci("run", "--bundle", t.bundle(), t.id)
}

// create makes a container of a command of the probe.
func (t *trial) create(args ...string) {
	t.spec.Process.Args = append([]string{"/probe"}, args...)
	t.write()
	t.made = append(t.made, t.id)
	t.ok("create", "--bundle", t.bundle(), t.id)
}

// started is a container that waits until it is killed.
func (t *trial) started() {
	t.create("wait")
	t.ok("start", t.id)
}

// stopped is a container that has ended.
func (t *trial) stopped() {
	t.create("exit", "0")
	t.ok("start", t.id)
	t.await("stopped")
}

// refusesConfig: create is to fail, and leave no container.
func (t *trial) refusesConfig() said {
	t.write()
	return t.refusesCreate()
}

func (t *trial) refusesCreate() said {
	t.made = append(t.made, t.id)
	s := t.refuses("create", "--bundle", t.bundle(), t.id)
	t.refuses("state", t.id)
	return s
}

// state is that of the container.
func (t *trial) state() (s specs.State) {
	out := t.ok("state", t.id)
	t.must(json.Unmarshal([]byte(out.out), &s))
	return s
}

// await waits for a status.
func (t *trial) await(status specs.ContainerState) {
	t.until("status "+string(status), func() bool { return t.state().Status == status })
}

func (t *trial) until(what string, f func() bool) {
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.failf("there is no %s", what)
		}
	}
}
