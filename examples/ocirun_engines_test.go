//go:build linux

package examples_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// engine is podman with ocirun as its runtime, with all its state below a directory.
type engine struct {
	dir  string
	args []string
	user *syscall.Credential // nil: root
}

func needPodman(t *testing.T) *engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: podman of an ordinary user needs a session")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	return newEngine(t, nil)
}

// rootlessPodman is podman of the user that has subordinate ids.
func rootlessPodman(t *testing.T) *engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: what the user's containers leave behind belongs to subordinate ids")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	const name = "caisson-test"
	u, err := user.Lookup(name)
	ids, rerr := os.ReadFile("/etc/subuid")
	if err != nil || rerr != nil || !strings.Contains("\n"+string(ids), "\n"+name+":") {
		t.Skipf("no user %s with subordinate ids: .ci/setup makes one", name)
	}
	id := func(text string) uint32 {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	return newEngine(t, &syscall.Credential{Uid: id(u.Uid), Gid: id(u.Gid)})
}

// newEngine makes an engine of a user's, with an image.
func newEngine(t *testing.T, id *syscall.Credential) *engine {
	t.Helper()
	e := &engine{user: id}
	if id == nil {
		e.dir = ownDir(t, 0)
	} else {
		e.dir = ownDir(t, int(id.Uid))
	}
	conf := filepath.Join(e.dir, "containers.conf")
	text := "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(e.dir, name) }
	e.args = []string{"CONTAINERS_CONF=" + conf, "podman", "--root", at("root"), "--runroot", at("run"), "--tmpdir", at("tmp"), "--storage-driver", "vfs",
		"--runtime", filepath.Join(bin, "ocirun")}
	root := at("image")
	busyboxRoot(t, root)
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	archive, err := exec.Command("tar", "-C", root, "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if id == nil {
		groupsStay(t, "/sys/fs/cgroup")
	}
	t.Cleanup(func() {
		_ = e.command(t, "rm", "--all", "--force", "--time", "0").Run()
		e.endPause(t)
	})
	cmd := e.command(t, "import", "-", "localhost/bb:latest")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return e
}

func (e *engine) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("env", append(append([]string{}, e.args...), args...)...)
	cmd.Dir = e.dir
	if e.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: e.user}
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.dir, "TMPDIR=" + e.dir, "XDG_RUNTIME_DIR=" + e.dir}
	}
	return cmd
}

// endPause ends the process that keeps an ordinary user's namespaces between commands.
func (e *engine) endPause(t *testing.T) {
	t.Helper()
	if e.user == nil {
		return
	}
	b, err := os.ReadFile(filepath.Join(e.dir, "tmp", "pause.pid"))
	if err != nil {
		t.Errorf("the process that keeps podman's namespaces: %v", err)
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || pid <= 1 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		t.Errorf("the process that keeps podman's namespaces is %q", b)
	}
}

// podman runs a command of podman; its output is in files, since what it leaves behind may hold it.
func (e *engine) podman(t *testing.T, args ...string) result {
	t.Helper()
	return (&runtimeOf{}).finishLeaving(t, e.command(t, args...))
}

// TestOcirunPodman drives podman as its users do. Each row is a feature, a command, its exit status and what it says.
func TestOcirunPodman(t *testing.T) {
	e := needPodman(t)
	vol := filepath.Join(e.dir, "vol")
	if err := os.Mkdir(vol, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vol+"/Containerfile", []byte("FROM localhost/bb\nRUN echo built > /built\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := "run --rm --network none "
	e.features(t, []feature{
		{"run, exit status", run + "localhost/bb", "exit 5", 5, `^$`},
		{"missing command", run + "localhost/bb nosuch", "", 127, `no such file or directory`},
		{"terminal", run + "-t localhost/bb tty", "", 0, `/dev/pts/0`},
		{"--read-only", run + "--read-only localhost/bb", "touch /tmp/x && touch /x", 1, `Read-only file system`},
		{"--tmpfs keeps what is there", run + "--tmpfs /etc:size=1m localhost/bb cat /etc/passwd", "", 0, `^root:`},
		{"--cap-add", run + "--cap-drop all --cap-add SYS_TIME localhost/bb grep CapBnd /proc/self/status", "", 0, `0000000002000000`},
		{"--privileged", run + "--privileged localhost/bb ls -la /dev/ptmx", "", 0, `pts/ptmx`},
		{"--userns", run + "--uidmap 0:100000:1000 localhost/bb cat /proc/self/uid_map", "", 0, `0 +100000 +1000`},
		{"--user", run + "--user 1000:1001 -w /tmp localhost/bb", "id; pwd", 0, `uid=1000(.|\n)*/tmp`},
		{"volume, read-only", run + "-v " + vol + ":/mnt:ro localhost/bb", "ls /mnt; touch /mnt/g", 1, `Containerfile(.|\n)*Read-only`},
		{"volume", run + "-v vv:/mnt localhost/bb", "echo 1 > /mnt/f; cat /mnt/f", 0, `^1`},
		{"--memory, killed", run + "--memory 16m localhost/bb", "x=aaaaaaaaaaaa; while :; do x=$x$x; done", 137, `^$`},
		{"--restart", "run -d --name again --network none --restart on-failure:2 localhost/bb false", "", 0, `^[0-9a-f]{64}`},
		{"--sysctl", run + "--sysctl net.ipv4.ip_forward=1 localhost/bb cat /proc/sys/net/ipv4/ip_forward", "", 0, `^1`},
		{"build", "build --isolation oci --network none -t localhost/built " + vol, "", 0, `localhost/built`},
		{"run what was built", run + "localhost/built cat /built", "", 0, `^built`},
		{"run --detach", "run -d --name web --network none --health-cmd true localhost/bb", "trap exit TERM; echo line; while :; do sleep 0.1; done", 0, `^[0-9a-f]{64}`},
		{"exec", "exec web", "echo inside; exit 3", 3, `^inside`},
		{"exec, terminal", "exec -t web tty", "", 0, `/dev/pts/0`},
		{"exec, missing command", "exec web nosuch", "", 127, `not found`},
		{"logs", "logs web", "", 0, `^line`},
		{"healthcheck", "healthcheck run web", "", 0, `^$`},
		{"stats", "stats --no-stream --no-trunc --format {{.PIDs}}/{{.MemUsageBytes}} web", "", 0, `^[1-9]\d*/[1-9]`},
		{"top", "top web", "", 0, `USER +PID`},
		{"pause", "pause web", "", 0, `web|[0-9a-f]{64}`},
		{"inspect, paused", "inspect --format {{.State.Status}} web", "", 0, `^paused`},
		{"unpause", "unpause web", "", 0, `web|[0-9a-f]{64}`},
		{"stop", "stop -t 60 web", "", 0, `web`},
		{"inspect, stopped", "inspect --format {{.State.Status}}/{{.State.ExitCode}} web", "", 0, `^exited/0|^exited/143`},
		{"start again", "start web", "", 0, `web`},
		{"kill", "kill -s KILL web", "", 0, `web|[0-9a-f]{64}`},
		{"rm", "rm -f -t 0 web", "", 0, `web`},
	})
	engineFeature(t, "--restart", func(t *testing.T) {
		awaitTrue(t, "2 restarts", func() bool {
			return e.podman(t, "inspect", "--format", "{{.RestartCount}}/{{.State.Status}}", "again").stdout == "2/exited\n"
		})
	})
	engineFeature(t, "pods", func(t *testing.T) {
		e.podman(t, "pod", "create", "--name", "p", "--hostname", "pod", "--network", "none", "--infra-image", "localhost/bb", "--infra-command", "sleep 100000").want(t, 0, `^[0-9a-f]{64}`)
		e.podman(t, "run", "-d", "--pod", "p", "--name", "inpod", "localhost/bb", "sh", "-c", "echo here >/dev/shm/x; sleep 100000").want(t, 0)
		awaitTrue(t, "what another of the pod wrote", func() bool {
			return e.podman(t, "run", "--rm", "--pod", "p", "localhost/bb", "sh", "-c", "hostname; cat /dev/shm/x").stdout == "pod\nhere\n"
		})
		e.podman(t, "pod", "stop", "-t", "0", "p").want(t, 0)
		e.podman(t, "pod", "rm", "-f", "p").want(t, 0)
	})
}

// TestOcirunPodmanRootless drives podman of an ordinary user, with what it has without a session and without a network.
func TestOcirunPodmanRootless(t *testing.T) {
	e := rootlessPodman(t)
	run := "run --rm --network none "
	e.features(t, []feature{
		{"run, exit status", run + "localhost/bb", "exit 5", 5, `^$`},
		{"all ids of the user's", run + "localhost/bb cat /proc/self/uid_map", "", 0, `^ +0 +0 +1\n +1 +1 +\d+`},
		{"--userns", run + "--userns keep-id localhost/bb id -u", "", 0, fmt.Sprintf(`^%d$`, e.user.Uid)},
		{"--user", run + "--user 1000:1001 localhost/bb id", "", 0, `^uid=1000\(1000\) gid=1001`},
		{"--read-only", run + "--read-only localhost/bb", "touch /x", 1, `Read-only file system`},
		{"volume", run + "-v vv:/mnt localhost/bb", "echo 1 > /mnt/f; cat /mnt/f", 0, `^1`},
		{"terminal", run + "-t localhost/bb tty", "", 0, `/dev/pts/0`},
		{"run --detach", "run -d --name web --network none localhost/bb", "trap exit TERM; echo line; while :; do sleep 0.1; done", 0, `^[0-9a-f]{64}`},
		{"exec", "exec web", "echo inside; exit 3", 3, `^inside`},
		{"exec, terminal", "exec -t web tty", "", 0, `/dev/pts/0`},
		{"logs", "logs web", "", 0, `^line`},
		{"stop", "stop -t 60 web", "", 0, `web`},
		{"inspect, stopped", "inspect --format {{.State.Status}}/{{.State.ExitCode}} web", "", 0, `^exited/0|^exited/143`},
		{"start again", "start web", "", 0, `web`},
		{"kill", "kill -s KILL web", "", 0, `web|[0-9a-f]{64}`},
		{"rm", "rm -f -t 0 web", "", 0, `web`},
	})
}

// feature is one of an engine: a command, its exit status and what it says.
type feature struct {
	feature, args, script string
	code                  int
	says                  string
}

// check runs the command of a feature. What has been written comes into logs when the engine has read it.
func (f feature) check(t *testing.T, args []string, run func() result) {
	t.Helper()
	re := regexp.MustCompile("(?m)" + f.says)
	r := run()
	for end := time.Now().Add(testutil.Time(time.Minute)); f.feature == "logs" && !re.MatchString(r.stdout) && time.Now().Before(end); {
		r = run()
	}
	if r.code != f.code || !re.MatchString(r.stdout+r.stderr) {
		t.Errorf("%s: want status %d and %q: %v", strings.Join(args, " "), f.code, f.says, r)
	}
}

func (e *engine) features(t *testing.T, list []feature) {
	t.Helper()
	for _, f := range list {
		ok := engineFeature(t, f.feature, func(t *testing.T) {
			args := strings.Fields(f.args)
			if f.script != "" {
				args = append(args, "sh", "-c", f.script)
			}
			f.check(t, args, func() result { return e.podman(t, args...) })
		})
		if !ok && f.feature == "run, exit status" {
			t.Fatal("nothing works")
		}
	}
}
