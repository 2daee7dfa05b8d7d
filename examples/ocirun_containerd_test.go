//go:build linux

package examples_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// containerdImage is the name that containerd knows the test's image by.
const containerdImage = "docker.io/library/bb:1"

// startContainerd runs containerd with all its state below a directory, and ocirun as its runtime.
func startContainerd(t *testing.T) *daemon {
	t.Helper()
	needEngine(t, "containerd", "containerd", "ctr")
	dir := ownDir(t, 0)
	image := busyboxImage(t, dir, "bb:1")
	config := fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q
[grpc]
address = %[3]q
[plugins."io.containerd.internal.v1.opt"]
path = %[4]q
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %[5]q
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = %[6]q
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "ocirun"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ocirun]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ocirun.options]
BinaryName = %[7]q
SystemdCgroup = false
`, dir+"/root", dir+"/state", dir+"/sock", dir+"/opt", containerdImage, dir+"/cni", filepath.Join(bin, "ocirun"))
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	writeCNI(t, dir)
	d := startDaemon(t, dir, "containerd", "--config", path)
	awaitTrue(t, "containerd listens", func() bool { return d.ctr("version").Run() == nil })
	for _, namespace := range []string{"k8s.io", testNamespace()} {
		if out, err := d.ctr("-n", namespace, "images", "import", image).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return d
}

// testNamespace is one of containerd, which names cgroups after it.
func testNamespace() string { return fmt.Sprintf("caisson-ctr-%d", os.Getpid()) }

func (d *daemon) ctr(args ...string) *exec.Cmd {
	return d.command(append([]string{"ctr", "-a", filepath.Join(d.dir, "sock")}, args...)...)
}

// TestOcirunContainerd drives containerd by its own client.
func TestOcirunContainerd(t *testing.T) {
	d := startContainerd(t)
	t.Cleanup(func() { removeGroups(t, testNamespace()) })
	flags := " --runc-binary " + filepath.Join(bin, "ocirun") + " --fifo-dir " + d.dir + "/fifo "
	run := "run --rm" + flags
	image := containerdImage
	follow(t, []row{
		{"run, exit status", run + image + " one", "echo out; echo err >&2; exit 5", 5, `^out\nerr$`},
		{"missing command", run + image + " two nosuch", "", 1, `nosuch.*no such file or directory`},
		{"--read-only", run + "--read-only " + image + " three", "touch /x", 1, `Read-only file system`},
		{"--memory, killed", run + "--memory-limit 16777216 " + image + " four", "x=aaaaaaaaaaaa; while :; do x=$x$x; done", 137, `^$`},
		{"--seccomp", run + "--seccomp " + image + " five grep Seccomp: /proc/self/status", "", 0, `2$`},
		{"--privileged", run + "--privileged " + image + " six", "mount -t tmpfs t /mnt && grep -c /mnt /proc/mounts", 0, `^1$`},
		{"--net-host", run + "--net-host " + image + " seven ip link", "", 0, `lo: <LOOPBACK,UP`},
		{"volume, read-only", run + "--mount type=bind,src=" + d.dir + ",dst=/mnt,options=rbind:ro " + image + " eight ls /mnt", "", 0, `config.toml`},
		{"--env and --cwd", run + "--env A=b --cwd /tmp " + image + " nine", "echo $A-$PWD", 0, `^b-/tmp$`},
		{"run --detach", "run -d" + flags + image + " web", "trap 'exit 3' TERM; while :; do sleep 0.1; done", 0, `^$`},
		{"inspect", "tasks ls", "", 0, `^web +\d+ +RUNNING`},
		{"exec", "tasks exec --fifo-dir " + d.dir + "/fifo --exec-id e1 web", "echo inside; exit 7", 7, `^inside$`},
		{"stats", "tasks metrics web", "", 0, `pids.current +[1-9]|memory.usage_in_bytes +[1-9]`},
		{"top", "tasks ps web", "", 0, `^PID`},
		{"pause", "tasks pause web", "", 0, `^$`},
		{"inspect, paused", "tasks ls", "", 0, `^web +\d+ +PAUSED`},
		{"unpause", "tasks resume web", "", 0, `^$`},
		{"kill", "tasks kill -s SIGTERM web", "", 0, `^$`},
	}, func(args []string) *exec.Cmd { return d.ctr(append([]string{"-n", testNamespace()}, args...)...) })
	ctr := func(args ...string) result {
		return finish(t, d.ctr(append([]string{"-n", testNamespace()}, args...)...))
	}
	awaitTrue(t, "web has ended", func() bool { return strings.Contains(ctr("tasks", "ls").stdout, "STOPPED") })
	ctr("tasks", "rm", "web").want(t, 0)
	ctr("containers", "rm", "web").want(t, 0)
}
