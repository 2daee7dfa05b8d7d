package caisson

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// needCRIU skips where there is no CRIU that fits the kernel. What is then answered is tested by TestCheckpointRefused.
func needCRIU(t testing.TB) {
	t.Helper()
	testutil.NeedRoot(t)
	if _, err := findCRIU(testContext(t), ""); err != nil {
		t.Skipf("no CRIU that fits this kernel: %v", err)
	}
}

// longContext is for what CRIU does in an emulated machine.
func longContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// onDisk is a root filesystem whose changes stay.
func onDisk(t testing.TB) rootfs.Source {
	t.Helper()
	return rootfs.Overlay(testutil.Busybox(t)).Upper(t.TempDir())
}

// counting counts, in its memory, on disk and to its output.
const counting = `umask 027; trap 'echo bye; exit 9' TERM; i=0; while :; do i=$((i+1)); echo $i > /count; echo n$i; sleep 0.1; done`

// counted waits until more than n was counted, and returns it.
func counted(t testing.TB, c *Container, more int) int {
	t.Helper()
	ctx := longContext(t)
	root, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, _ := fs.ReadFile(root.FS(), "count")
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > more {
			return n
		}
		if ctx.Err() != nil {
			t.Fatalf("nothing more is counted: %q", b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestCheckpoint: what is written to disk goes on in another container, as it was.
func TestCheckpoint(t *testing.T) {
	needCRIU(t)
	noLeaks(t)
	ctx := longContext(t)
	volume := t.TempDir()
	var first, second buffer
	opts := func(out *buffer) []Option {
		return []Option{WithCommand("sh", "-c", counting), WithStdout(out), WithHostname("kept"), WithMemory(64 << 20), WithPids(20),
			WithMount(rootfs.BindMount(volume, "/volume")), WithMount(rootfs.TmpfsMount("/scratch", 1<<20))}
	}
	src := onDisk(t)
	c := newContainer(t, append(opts(&first), WithRootfs(src))...)
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := counted(t, c, 3)
	if out, res := execs(t, c, "echo kept > /scratch/file; echo outside > /volume/file; mkdir /new"); !res.Success() {
		t.Fatal(out, res)
	}
	const look = `hostname; umask; cat /scratch/file /volume/file; ls -d /new; cat /proc/self/cgroup; cat /proc/1/comm
		grep -E '^(Uid|Gid|Groups|CapBnd|CapPrm|NoNewPrivs|Seccomp|NSpid)' /proc/1/status; ls /sys/fs/cgroup | grep -c memory.max; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max`
	was, _ := execs(t, c, look)
	dir := filepath.Join(t.TempDir(), "checkpoint")
	if err := c.Checkpoint(ctx, CheckpointConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if res, err := p.Wait(ctx); err != nil || res.Reason != ReasonCheckpointed || res.Signal != syscall.SIGKILL {
		t.Fatalf("%+v, %v", res, err)
	}
	before = counted(t, c, before-1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	r := newContainer(t, append(opts(&second), WithRootfs(src), WithRestore(dir))...)
	if _, err := r.Create(ctx); !errors.Is(err, ErrUnsupported) {
		t.Errorf("create: %v", err)
	}
	p, err = r.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r.State() != StateRunning {
		t.Errorf("%v", r.State())
	}
	counted(t, r, before+3)
	if strings.Contains(second.String(), "n1\n") || !strings.Contains(second.String(), "n"+strconv.Itoa(before+2)+"\n") {
		t.Errorf("it did not go on from %d: %q", before, second.String())
	}
	if is, _ := execs(t, r, look); is != was {
		t.Errorf("was:\n%s\nis:\n%s", was, is)
	}
	is, err := namespaces.IDOfProcess(namespaces.Cgroup, p.Pid())
	own, err2 := namespaces.IDOfProcess(namespaces.Cgroup, os.Getpid())
	if err != nil || err2 != nil || is == own {
		t.Errorf("in the host's cgroup namespace: %v, %v", err, err2)
	}
	if s, err := r.Stats(ctx); err != nil || s.Pids.Current.Or(0) < 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := r.Pause(ctx); err != nil {
		t.Error(err)
	}
	if err := r.Resume(ctx); err != nil {
		t.Error(err)
	}
	if err := r.Stop(ctx, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if res, err := p.Wait(ctx); err != nil || res.ExitCode != 9 || !strings.HasSuffix(second.String(), "bye\n") {
		t.Errorf("%+v, %v, %q", res, err, second.String())
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestCheckpointLeavesRunning: the container goes on, and what was written is an earlier state of it.
func TestCheckpointLeavesRunning(t *testing.T) {
	needCRIU(t)
	noLeaks(t)
	ctx := longContext(t)
	src, tmp := onDisk(t), t.TempDir()
	c := newContainer(t, WithCommand("sh", "-c", counting), WithRootfs(src))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	counted(t, c, 2)
	if err := c.Checkpoint(ctx, CheckpointConfig{Dir: filepath.Join(tmp, "a"), LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	if c.State() != StateRunning {
		t.Fatalf("%v", c.State())
	}
	n := counted(t, c, 0)
	counted(t, c, n+2)
	if err := c.Checkpoint(ctx, CheckpointConfig{Dir: filepath.Join(tmp, "a")}); !errors.Is(err, ErrInvalid) {
		t.Errorf("into a directory that is not empty: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(tmp, "none"))
	// The wrong wish is refused by name, and leaves nothing.
	for want, opts := range map[string][]Option{
		"bind mounts": {WithMount(rootfs.BindMount(tmp, "/volume"))},
	} {
		r := newContainer(t, append(opts, WithRootfs(src), WithRestore(filepath.Join(tmp, "a")))...)
		if _, err := r.Start(ctx); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	// Images that CRIU cannot read end in its own words.
	broken := filepath.Join(tmp, "b")
	if err := os.CopyFS(broken, os.DirFS(filepath.Join(tmp, "a"))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(broken, 0o700), os.Truncate(filepath.Join(broken, "core-1.img"), 40)); err != nil {
		t.Fatal(err)
	}
	r := newContainer(t, WithRootfs(src), WithRestore(broken))
	if _, err := r.Start(ctx); err == nil || !strings.Contains(err.Error(), "criu") {
		t.Errorf("broken images: %v", err)
	}
	r = newContainer(t, WithRootfs(src), WithRestore(filepath.Join(tmp, "a")))
	p, err := r.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	counted(t, r, 2)
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if res, err := r.Wait(ctx); err != nil || res.Reason != ReasonStopped {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestCheckpointRefused: what cannot be taken along, or cannot be done here, is said, and the container goes on.
func TestCheckpointRefused(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	dir := filepath.Join(t.TempDir(), "checkpoint")
	for name, cfg := range map[string]CheckpointConfig{"no directory": {}, "relative": {Dir: "here"}} {
		c := newContainer(t, WithCommand("true"))
		if err := c.Checkpoint(ctx, cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for want, opts := range map[string][]Option{
		"terminal": {WithTerminal(24, 80), WithStdout(&buffer{})},
		"init":     {WithInit(true)},
		"memory":   {WithNamespace(namespaces.User, namespaces.Host())},
	} {
		if os.Geteuid() != 0 {
			if want == "memory" {
				opts = nil
			}
			want = "CRIU needs root"
		}
		c := runs(t, append(opts, WithRootfs(dirOf(t)))...)
		err := c.Checkpoint(ctx, CheckpointConfig{Dir: dir})
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if _, err := os.Stat(dir); err == nil || c.State() != StateRunning {
			t.Errorf("%s: %v, state %v", want, err, c.State())
		}
	}
	for want, opts := range map[string][]Option{
		"absolute": {WithRestore("here")}, "terminal": {WithRestore(dir), WithTerminal(24, 80)},
		"WithDetached": {WithRestore(dir), WithDetached(true), WithID("x")},
	} {
		if _, err := New(opts...); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	c := newContainer(t, WithRestore(dir))
	if _, err := c.Start(ctx); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no checkpoint: %v", err)
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(dir, 0o777)
	if _, err := c.Start(ctx); !errors.Is(err, ErrPrivilege) {
		t.Errorf("a checkpoint that others can write: %v", err)
	}
	_ = os.Chmod(dir, 0o700)
	if err := writeNote(dir, checkpointed{Version: checkpointVersion + 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(ctx); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a later version: %v", err)
	}
}

// TestCheckpointWithoutCRIU: the container goes on where there is no program that could write it.
func TestCheckpointWithoutCRIU(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, WithCommand("sh", "-c", counting), WithRootfs(onDisk(t)))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	for _, program := range []string{"no-such-program", "false"} {
		err := c.Checkpoint(ctx, CheckpointConfig{Dir: dir, Program: program})
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", program, err)
		}
		var e *Error
		if !errors.As(err, &e) || e.Remedy == "" {
			t.Errorf("no remedy: %v", err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was left behind")
	}
	n := counted(t, c, 0)
	counted(t, c, n+1)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Checkpoint(canceled, CheckpointConfig{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func FuzzCheckpointNote(f *testing.F) {
	f.Add([]byte(`{"version":1,"streams":["","pipe:[1]"],"binds":["/a"]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseNote(b); err == nil && n.Version != checkpointVersion {
			t.Errorf("%+v", n)
		}
	})
}

// CRIU goes from one checkpoint to the one before by a relative way, which begins where the directory really is.
func TestCheckpointParents(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := func(name string) string { return filepath.Join(base, name) }
	if err := errors.Join(os.MkdirAll(dir("far/away/one"), 0o700), os.Mkdir(dir("two"), 0o700), os.Mkdir(dir("others"), 0o700), os.Chmod(dir("others"), 0o777),
		os.Symlink(dir("far/away"), dir("link"))); err != nil {
		t.Fatal(err)
	}
	args, err := parentArgs(&CheckpointConfig{Dir: dir("link/one"), Parent: dir("two")})
	if want := []string{"--track-mem", "--prev-images-dir", "../../../two"}; err != nil || !slices.Equal(args, want) {
		t.Fatalf("%q, %v; want %q", args, err, want)
	}
	if err := os.Symlink(args[2], dir("far/away/one/parent")); err != nil { // as CRIU does
		t.Fatal(err)
	}
	if err := checkParents(dir("link/one")); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("../others", dir("two/parent")); err != nil {
		t.Fatal(err)
	}
	if err := checkParents(dir("link/one")); !errors.Is(err, ErrPrivilege) {
		t.Errorf("a parent that others can write to: %v", err)
	}
	if err := errors.Join(os.Remove(dir("two/parent")), os.Symlink("../two", dir("two/parent"))); err != nil {
		t.Fatal(err)
	}
	if err := checkParents(dir("link/one")); !errors.Is(err, ErrInvalid) {
		t.Errorf("one that is its own parent: %v", err)
	}
}

// The images stay when the record cannot be changed after they were written: nothing else is left of the container.
func TestCheckpointUnnoted(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	ctx := longContext(t)
	d := stateDir(t)
	c := detached(t, d, "web", sh("sleep 1000"), WithRootfs(onDisk(t)))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(string(d), "*", "state.json"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	record := found[0]
	whole, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	// In place of CRIU, which fits few kernels: what it leaves when it has succeeded, and a record that somebody has spoilt meanwhile.
	program := filepath.Join(t.TempDir(), "criu")
	script := "#!/bin/sh\n[ $1 = dump ] || exit 0\necho spoilt > '" + record + "'\ntouch \"$5/inventory.img\"\nkill -9 $3\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	if err := c.Checkpoint(ctx, CheckpointConfig{Dir: dir, Program: program}); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadFile(record); err != nil || string(now) != "spoilt\n" {
		t.Errorf("the record was not spoilt: %q, %v", now, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "inventory.img")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(record, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(ctx); err != nil {
		t.Error(err)
	}
}
