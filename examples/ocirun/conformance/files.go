package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// lines are those that probes have written to a file of the log.
func (t *trial) lines(name string) []string {
	b, _ := os.ReadFile(filepath.Join(t.dir, "log", name))
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

func (t *trial) wantLines(name string, wanted ...string) {
	if got := t.lines(name); !slices.Equal(got, wanted) {
		t.failf("%s has %q, not %q", name, got, wanted)
	}
}

func (t *trial) refuseFile(name string) {
	if _, err := os.Lstat(filepath.Join(t.dir, name)); err == nil {
		t.failf("there is a file %s", name)
	}
}

// tmpfs makes a mount in the trial's directory, and a file in it.
func (t *trial) tmpfs(name string) string {
	dir := filepath.Join(t.dir, name)
	t.must(os.MkdirAll(dir, 0o755))
	t.must(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
	t.undo = append([]func(){func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }}, t.undo...)
	t.must(os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644))
	return dir
}

// keepNamespace makes a namespace that lives as long as the trial, and returns a path to it.
func (t *trial) keepNamespace(kind string, flag uintptr) string {
	path := filepath.Join(t.dir, "ns-"+kind)
	t.must(os.WriteFile(path, nil, 0o644))
	cmd := exec.Command(t.probe(), "wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag, Pdeathsig: syscall.SIGKILL}
	if flag == unix.CLONE_NEWUSER {
		maps := []syscall.SysProcIDMap{{HostID: 100000, Size: 65536}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = maps, maps
	}
	t.must(cmd.Start())
	t.undo = append(t.undo, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	from := "/proc/" + itoa(cmd.Process.Pid) + "/ns/" + kind
	if kind == "mnt" || kind == "pid" {
		return from // the former cannot be mounted; the latter must have a process
	}
	t.must(unix.Mount(from, path, "", unix.MS_BIND, ""))
	t.undo = append(t.undo, func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

func (t *trial) isNamespace(path string) {
	var st unix.Statfs_t
	t.must(unix.Statfs(path, &st))
	if st.Type != unix.NSFS_MAGIC {
		t.failf("%s is no namespace any more", path)
	}
}

// reportPassing is report with a file as descriptor 3.
func (t *trial) reportPassing(file string, asked ...string) *report {
	t.spec.Process.Args = append([]string{"/probe", "report"}, asked...)
	t.write()
	t.made = append(t.made, t.id)
	f, err := os.Open(file)
	t.must(err)
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.path, "--root", filepath.Join(t.base, "state"), "run", "--preserve-fds", "1", "--bundle", t.bundle(), t.id)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.Output()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		t.failf("%v", said{string(out), string(ee.Stderr), ee.ExitCode()})
	}
	t.must(err)
	return t.parse(said{out: string(out)})
}
