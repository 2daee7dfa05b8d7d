//go:build linux

package examples_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// runtimeOf is ocirun for one caller, with a state directory and a bundle of its own.
type runtimeOf struct {
	caller
	state, bundle string
}

func newRuntime(t *testing.T, c caller, change func(*specs.Spec)) *runtimeOf {
	t.Helper()
	r := &runtimeOf{c, filepath.Join(c.dir, "state"), filepath.Join(c.dir, "bundle")}
	root := filepath.Join(r.bundle, "rootfs")
	busyboxRoot(t, root)
	args := []string{"spec", "--bundle", r.bundle}
	if !c.root() {
		args = append(args, "--rootless")
		if err := os.Chmod(r.bundle, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	r.run(t, "ocirun", args...).want(t, 0)
	r.change(t, func(s *specs.Spec) {
		s.Process.Terminal, s.Process.Env = false, append(s.Process.Env, "MARK=here")
		s.Process.Args = []string{"sleep", "1000"}
		if change != nil {
			change(s)
		}
	})
	t.Cleanup(func() {
		for id := range strings.FieldsSeq(r.oci(t, "list", "-q").stdout) {
			r.oci(t, "delete", "--force", id).want(t, 0)
		}
	})
	return r
}

// busyboxRoot makes a root filesystem of one program.
func busyboxRoot(t *testing.T, root string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox on this machine: install the package busybox-static")
	}
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "etc", "run", "mnt"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for a := range strings.FieldsSeq(string(list)) {
		_ = os.Symlink("busybox", filepath.Join(root, "bin", a))
	}
}

func (r *runtimeOf) change(t *testing.T, f func(*specs.Spec)) {
	t.Helper()
	path := filepath.Join(r.bundle, "config.json")
	var s specs.Spec
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	f(&s)
	if b, err = json.Marshal(&s); err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (r *runtimeOf) oci(t *testing.T, args ...string) result {
	t.Helper()
	return r.finishLeaving(t, r.ociCommand(t, args...))
}

// finishLeaving is finish for a program that leaves others behind that hold its output.
func (r *runtimeOf) finishLeaving(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	files := [2]*os.File{}
	for i := range files {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	var ee *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	var text [2]string
	for i, f := range files {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		text[i] = string(b)
	}
	return result{text[0], text[1], cmd.ProcessState.ExitCode()}
}

func (r *runtimeOf) ociCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := r.command(t, "ocirun", append([]string{"--root", r.state}, args...)...)
	cmd.Dir = r.bundle
	return cmd
}

func (r *runtimeOf) status(t *testing.T, id string) (s struct {
	specs.State
	Rootfs string `json:"rootfs"`
}) {
	t.Helper()
	out := r.oci(t, "state", id)
	out.want(t, 0)
	if err := json.Unmarshal([]byte(out.stdout), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// The life of a container by separate commands, as engines have it.
func TestOcirunLife(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) { s.Annotations = map[string]string{"org.example.a": "b"} })
		pidFile := filepath.Join(r.dir, "pid")
		r.oci(t, "create", "--pid-file", pidFile, "web").want(t, 0, `^$`)
		s := r.status(t, "web")
		if b, err := os.ReadFile(pidFile); err != nil || string(b) != strconv.Itoa(s.Pid) {
			t.Errorf("pid file: %q, %v; it is %d", b, err, s.Pid)
		}
		if s.Status != specs.StateCreated || s.Bundle != r.bundle || s.Rootfs != filepath.Join(r.bundle, "rootfs") || s.Annotations["org.example.a"] != "b" || s.ID != "web" {
			t.Errorf("%+v", s)
		}
		r.oci(t, "create", "web").wantErr(t, 1, `exists already`)
		r.oci(t, "start", "web").want(t, 0)
		r.oci(t, "start", "web").wantErr(t, 1, `cannot start an already running container`)
		if s := r.status(t, "web"); s.Status != specs.StateRunning {
			t.Errorf("%+v", s)
		}
		r.oci(t, "list").want(t, 0, `^ID +PID +STATUS +BUNDLE +CREATED +OWNER$`, `^web +\d+ +running +`+r.bundle)
		r.oci(t, "list", "-q").want(t, 0, `^web$`)
		r.oci(t, "list", "--format", "json").want(t, 0, `"status":"running"`)
		r.oci(t, "ps", "--format", "json", "web").want(t, 0, `^\[`+strconv.Itoa(s.Pid)+`\]$`)
		r.oci(t, "delete", "web").wantErr(t, 1, `cannot delete container web that is not stopped: running`)
		r.oci(t, "kill", "web", "KILL").want(t, 0)
		awaitStatus(t, r, "web", specs.StateStopped)
		r.oci(t, "kill", "web").wantErr(t, 1, `container not running`)
		r.oci(t, "start", "web").wantErr(t, 1, `cannot start a container that has stopped`)
		r.oci(t, "delete", "web").want(t, 0)
		r.oci(t, "state", "web").wantErr(t, 1, `container "web" does not exist`)
		r.oci(t, "delete", "web").wantErr(t, 1, `does not exist`)
		r.oci(t, "delete", "--force", "web").want(t, 0)
		r.oci(t, "list", "--format", "json").want(t, 0, `^null$`)
	})
}

func awaitStatus(t *testing.T, r *runtimeOf, id string, want specs.ContainerState) {
	t.Helper()
	awaitTrue(t, string(want), func() bool { return r.status(t, id).Status == want })
}

// run waits for the process, whose exit status and streams are its own.
func TestOcirunRun(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, nil)
		sh := func(script string) {
			r.change(t, func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", script} })
		}
		sh("read x; echo out $x; echo err >&2; exit 7")
		cmd := r.ociCommand(t, "run", "web")
		cmd.Stdin = strings.NewReader("in\n")
		out := finish(t, cmd)
		out.want(t, 7, `^out in$`)
		out.wantErr(t, 7, `^err$`)
		sh("sh -c 'kill -9 $$'; exit $?")
		r.oci(t, "run", "web").want(t, 137)
		sh("exit 0")
		r.oci(t, "run", "-d", "web").want(t, 0)
		awaitStatus(t, r, "web", specs.StateStopped)
		r.oci(t, "delete", "web").want(t, 0)
		sh("exit 3")
		r.oci(t, "run", "--keep", "web").want(t, 3)
		r.oci(t, "delete", "web").want(t, 0)
		r.change(t, func(s *specs.Spec) { s.Process.Args = []string{"/no/such"} })
		r.oci(t, "run", "web").wantErr(t, 1, `execute /no/such`, `no such file or directory`)
		r.change(t, func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_BOGUS"}} })
		r.oci(t, "run", "web").wantErr(t, 1, `config.json: process.rlimits\[0\].type: .*RLIMIT_BOGUS`)
		r.oci(t, "list", "-q").want(t, 0, `^$`)
	})
}

// Signals to run are for the process: the usual ones from the first moment, all others soon.
func TestOcirunSignals(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", "trap 'echo usr1' USR1; trap 'echo late; exit 5' 37; echo ready; sleep 1000 & while :; do wait; done"}
		})
		cmd := r.ociCommand(t, "run", "web")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(2*time.Minute, func() { r.oci(t, "kill", "web", "KILL") })
		defer kill.Stop()
		lines := bufio.NewReader(out)
		line := func(want string) {
			if got, err := lines.ReadString('\n'); got != want+"\n" {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		}
		line("ready")
		_ = cmd.Process.Signal(syscall.SIGUSR1)
		line("usr1")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			line("late")
		}()
		for again := time.NewTicker(20 * time.Millisecond); ; {
			_ = cmd.Process.Signal(syscall.Signal(37))
			select {
			case <-again.C:
				continue
			case <-ended:
			}
			again.Stop()
			break
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
			t.Errorf("%v", err)
		}
	})
}

func TestOcirunExec(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, nil)
		r.oci(t, "run", "--detach", "web").want(t, 0)
		r.oci(t, "exec", "web", "sh", "-c", "echo $MARK; pwd; exit 4").want(t, 4, `^here$`, `^/$`)
		r.oci(t, "exec", "-e", "A=1", "--cwd", "/tmp", "web", "sh", "-c", "echo $A; pwd").want(t, 0, `^1$`, `^/tmp$`)
		r.oci(t, "exec", "web", "no-such-command").wantErr(t, 255, `no such file or directory`)
		p := &specs.Process{Args: []string{"sh", "-c", "echo $B$MARK; exec sleep 1000"}, Cwd: "/", Env: []string{"PATH=/bin", "B=2"}}
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		file, pidFile := filepath.Join(r.dir, "process.json"), filepath.Join(r.dir, "pid")
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := r.ociCommand(t, "exec", "--process", file, "--detach", "--pid-file", pidFile, "web")
		out, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout = w
		err = cmd.Run()
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 100)
		if n, err := out.Read(line); err != nil || string(line[:n]) != "2\n" {
			t.Errorf("%q, %v", line[:n], err)
		}
		pid, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		r.oci(t, "ps", "-f", "json", "web").want(t, 0, string(pid)) // it lives on
		r.oci(t, "kill", "--all", "web", "9").want(t, 0)
		awaitStatus(t, r, "web", specs.StateStopped)
		r.oci(t, "exec", "web", "true").wantErr(t, 255, `not running`)
	})
}

// Without cgroups what the bundle says of them is left out.
func TestOcirunWithoutCgroups(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) {
			limit := int64(1 << 30)
			s.Linux.CgroupsPath, s.Linux.Resources = "/caisson-nowhere/web", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
			s.Process.Args = []string{"sh", "-c", "! grep nowhere /proc/self/cgroup"}
		})
		r.oci(t, "--cgroup-manager", "disabled", "run", "web").want(t, 0)
	})
}

// Limits, figures and the freezer need a cgroup.
func TestOcirunCgroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: ordinary users have no cgroup in a bundle")
	}
	r := newRuntime(t, caller{0, ownDir(t, 0)}, func(s *specs.Spec) { s.Linux.CgroupsPath = fmt.Sprintf("/caisson-test-%d/web", os.Getpid()) })
	t.Cleanup(func() { removeGroups(t, fmt.Sprintf("caisson-test-%d", os.Getpid())) })
	r.oci(t, "run", "-d", "web").want(t, 0)
	r.oci(t, "pause", "web").want(t, 0)
	if s := r.status(t, "web"); s.Status != "paused" {
		t.Errorf("%+v", s)
	}
	r.oci(t, "exec", "web", "true").wantErr(t, 255, `cannot exec in a paused container`)
	r.oci(t, "resume", "web").want(t, 0)
	r.oci(t, "update", "--pids-limit", "10", "web").want(t, 0)
	r.oci(t, "exec", "web", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait").wantErr(t, 2, `fork`)
	cmd := r.ociCommand(t, "update", "--resources", "-", "web")
	cmd.Stdin = strings.NewReader(`{"pids": {"limit": 20}}`)
	finish(t, cmd).want(t, 0)
	r.oci(t, "update", "--cpu-rt-runtime", "100", "--cpu-rt-period", "50", "web").wantErr(t, 1, `linux.resources.cpu.realtimeRuntime`)
	r.oci(t, "events", "--stats", "web").want(t, 0, `^{"type":"stats","id":"web","data":{"cpu":{"usage":{"total":\d+`, `"pids":{"current":[1-9]\d*,"limit":20}`, `"memory":{.*"usage":{"limit":18446744073709551615,`)
	watch := r.ociCommand(t, "events", "--interval", "100ms", "web")
	var seen lockedBuffer
	watch.Stdout = &seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	seen.await(t, "}\n{\"type\":\"stats\"")
	r.oci(t, "kill", "web", "SIGKILL").want(t, 0)
	if err := watch.Wait(); err != nil {
		t.Error(err)
	}
}

// removeGroups removes a group that nothing is in any more, with those below it, from each hierarchy.
func removeGroups(t *testing.T, name string) {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	own, _ := filepath.Glob("/sys/fs/cgroup/" + name)
	for _, d := range append(dirs, own...) {
		awaitTrue(t, d+" can be removed", func() bool { // when the last of its processes has ended
			err := os.Remove(d)
			return err == nil || errors.Is(err, os.ErrNotExist)
		})
	}
}

func TestOcirunTerminal(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) {
			s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 11, Width: 22}
			s.Process.Args = []string{"sh", "-c", "tty; stty size; stat -c %t:%T /dev/console $(tty) | uniq | wc -l; echo con >/dev/console; read x"}
		})
		r.oci(t, "create", "web").wantErr(t, 1, `without setting console socket`)
		socket := filepath.Join(r.dir, "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Chmod(socket, 0o777); err != nil {
			t.Fatal(err)
		}
		r.oci(t, "create", "--console-socket", socket, "web").want(t, 0)
		tty := receiveFile(t, l)
		defer tty.Close()
		r.oci(t, "start", "web").want(t, 0)
		readUntil(t, tty, "11 22\r\n1\r\ncon\r\n")
	})
}

// Who has no terminal is told so, and does not wait for what nobody can type.
func TestOcirunNoTerminal(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, nil)
		alone := func(args ...string) result {
			cmd := r.ociCommand(t, args...)
			if cmd.SysProcAttr == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{}
			}
			cmd.SysProcAttr.Setsid = true // no controlling terminal
			return r.finishLeaving(t, cmd)
		}
		r.oci(t, "run", "--detach", "web").want(t, 0)
		alone("exec", "--tty", "web", "cat").wantErr(t, 255, `^ocirun: cannot allocate tty: .*process\.terminal`)
		alone("exec", "web", "cat").want(t, 0, `^$`)
		r.change(t, func(s *specs.Spec) { s.Process.Terminal, s.Process.Args = true, []string{"cat"} })
		alone("run", "other").wantErr(t, 1, `^ocirun: cannot allocate tty: .*process\.terminal`)
		r.oci(t, "state", "other").wantErr(t, 1, `does not exist`)
		cmd := c.command(t, "run", "-t", "cat")
		finish(t, cmd).wantErr(t, 125, `^-t: standard input is no terminal`)
	})
}

func receiveFile(t *testing.T, l *net.UnixListener) *os.File {
	t.Helper()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	name, oob := make([]byte, 4096), make([]byte, 256)
	n, m, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%v, %v", msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	return os.NewFile(uintptr(fds[0]), string(name[:n]))
}

func readUntil(t *testing.T, f *os.File, text string) {
	t.Helper()
	got := ""
	for buf := make([]byte, 4096); !strings.Contains(got, text); {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("%q has not come, only %q: %v", text, got, err)
		}
		got += string(buf[:n])
	}
}

// Descriptors of the caller, and sockets that a service manager listens on.
func TestOcirunDescriptors(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", "cat <&3; cat <&4; echo $LISTEN_FDS-$LISTEN_PID; test ! -e /proc/self/fd/5"}
		})
		r.oci(t, "run", "--preserve-fds", "200", "web").wantErr(t, 1, `preserved-fd`)
		cmd := r.ociCommand(t, "run", "--preserve-fds", "1", "web")
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
		for _, text := range []string{"one", "two"} {
			pr, pw, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer pr.Close()
			pw.WriteString(text + "\n")
			pw.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, pr)
		}
		finish(t, cmd).want(t, 0, `^one\ntwo\n1-1$`)
	})
}

func TestOcirunLog(t *testing.T) {
	c := caller{os.Getuid(), ownDir(t, os.Getuid())}
	log := filepath.Join(c.dir, "log")
	c.run(t, "ocirun", "--root", filepath.Join(c.dir, "state"), "--log", log, "--log-format", "json", "state", "none").wantErr(t, 1, `does not exist`)
	b, err := os.ReadFile(log)
	var line struct{ Level, Msg, Time string }
	if err == nil {
		err = json.Unmarshal(b, &line)
	}
	if err != nil || line.Level != "error" || !strings.Contains(line.Msg, "does not exist") || line.Time == "" {
		t.Errorf("%s: %+v, %v", b, line, err)
	}
	c.run(t, "ocirun", "--log-format", "xml", "list").wantErr(t, 1, `invalid log-format`)
	c.run(t, "ocirun", "nonsense").wantErr(t, 1, `no command "nonsense"`)
	c.run(t, "ocirun", "--help").want(t, 0, `create`, `--systemd-cgroup`)
	c.run(t, "ocirun", "--version").want(t, 0, `^ocirun version`, `^spec: 1\.`)
	c.run(t, "ocirun", "features").want(t, 0, `"ociVersionMax": "1.3.0"`, `"createContainer"`, `"rbind"`)
	c.run(t, "ocirun", "--root", filepath.Join(c.dir, "state"), "checkpoint", "x").wantErr(t, 1, `does not exist`)
}

// awaitTrue waits until something has happened, a minute at most.
func awaitTrue(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: it has not happened", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A mount with id maps of its own shows files of another owner.
func TestOcirunMappedMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: ordinary users cannot map the owners of a mount")
	}
	c := caller{0, ownDir(t, 0)}
	src := filepath.Join(c.dir, "src")
	err := os.Mkdir(src, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(src, "file"), nil, 0o644)
	}
	if err == nil {
		err = os.Chown(filepath.Join(src, "file"), 1000, 1001)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := newRuntime(t, c, func(s *specs.Spec) {
		maps := []specs.LinuxIDMapping{{ContainerID: 1000, HostID: 7000, Size: 10}}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: src, Options: []string{"bind"}, UIDMappings: maps, GIDMappings: maps})
		s.Process.Args = []string{"stat", "-c", "%u:%g", "/mnt/file"}
	})
	r.oci(t, "run", "web").want(t, 0, `^7000:7001$`)
	r.change(t, func(s *specs.Spec) { s.Mounts[len(s.Mounts)-1].GIDMappings = nil })
	r.oci(t, "run", "web").wantErr(t, 1, `mounts\[\d+\]\.uidMappings: .*gidMappings`)
}
