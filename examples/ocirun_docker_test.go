//go:build linux

package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startDocker runs dockerd with all its state below a directory, its own network, and ocirun as the runtime of all containers.
func startDocker(t *testing.T) *daemon {
	t.Helper()
	needEngine(t, "Docker", "dockerd", "docker", "containerd", "iptables")
	dir := ownDir(t, 0)
	config, err := json.Marshal(map[string]any{"data-root": dir + "/root", "exec-root": dir + "/exec", "pidfile": dir + "/pid", "hosts": []string{"unix://" + dir + "/sock"},
		"exec-opts": []string{"native.cgroupdriver=cgroupfs"}, "cgroup-parent": "/" + dockerGroup(), "storage-driver": "overlay2",
		"runtimes": map[string]any{"ocirun": map[string]any{"path": filepath.Join(bin, "ocirun")}}, "default-runtime": "ocirun", "bip": "10.87.0.1/24",
		"default-ulimits": map[string]any{"nofile": map[string]any{"Name": "nofile", "Hard": 16384, "Soft": 4096}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(path, config, 0o644); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, dir, "dockerd", "--config-file", path)
	awaitTrue(t, "dockerd listens", func() bool { return d.docker("version").Run() == nil })
	if out, err := d.docker("load", "-i", busyboxImage(t, dir, "bb:1")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return d
}

func dockerGroup() string { return fmt.Sprintf("caisson-docker-%d", os.Getpid()) }

func (d *daemon) docker(args ...string) *exec.Cmd {
	return d.command(append([]string{"env", "DOCKER_BUILDKIT=0", "docker", "-H", "unix://" + d.dir + "/sock"}, args...)...)
}

// TestOcirunDocker drives Docker as its users do.
func TestOcirunDocker(t *testing.T) {
	d := startDocker(t)
	t.Cleanup(func() { removeGroups(t, dockerGroup()) })
	t.Run("programs inside", func(t *testing.T) { insideDocker(t, d) })
	src := filepath.Join(d.dir, "src")
	err := os.Mkdir(src, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(src, "Dockerfile"), []byte("FROM bb:1\nRUN echo built > /built\nCMD cat /built\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := "run --rm --network none "
	docker := func(args []string) *exec.Cmd { return d.docker(args...) }
	follow(t, []row{
		{"run, exit status", run + "bb:1", "echo out; echo err >&2; exit 5", 5, `^out\nerr$`},
		{"missing command", run + "bb:1 nosuch", "", 127, `no such file or directory|not found`},
		{"--read-only", run + "--read-only bb:1", "touch /x", 1, `Read-only file system`},
		{"--cap-add", run + "--cap-drop all --cap-add SYS_TIME bb:1 grep CapBnd /proc/self/status", "", 0, `0000000002000000`},
		{"seccomp, by default", run + "bb:1 grep Seccomp: /proc/self/status", "", 0, `2$`},
		{"--privileged", run + "--privileged bb:1", "mount -t tmpfs t /mnt && grep -c /mnt /proc/mounts", 0, `^1$`},
		{"--user", run + "--user 1000:1001 -w /tmp bb:1", "id; pwd", 0, `uid=1000(.|\n)*/tmp`},
		{"--tmpfs", run + "--tmpfs /mnt:size=1m bb:1 grep /mnt /proc/mounts", "", 0, `size=1024k`},
		{"--sysctl", run + "--sysctl net.ipv4.ip_forward=0 bb:1 cat /proc/sys/net/ipv4/ip_forward", "", 0, `^0`},
		{"--ulimit", run + "--ulimit nofile=100:200 bb:1", "ulimit -n; ulimit -Hn", 0, `^100\n200$`},
		{"--shm-size", run + "--shm-size 8m bb:1 grep /dev/shm /proc/mounts", "", 0, `size=8192k`},
		{"volume, read-only", run + "-v " + d.dir + ":/mnt:ro bb:1", "ls /mnt; touch /mnt/g", 1, `daemon.json(.|\n)*Read-only`},
		{"volume", run + "-v vv:/mnt bb:1", "echo 1 > /mnt/f; cat /mnt/f", 0, `^1`},
		{"--memory, killed", "run --name oom --network none --memory 16m bb:1", "x=aaaaaaaaaaaa; while :; do x=$x$x; done", 137, `^$`},
		{"the kill is reported", "inspect --format {{.State.OOMKilled}} oom", "", 0, `^true$`},
		{"--pids-limit", run + "--pids-limit 7 bb:1", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait", 2, `fork`},
		{"build", "build -q -t built " + src, "", 0, `^sha256:`},
		{"run what was built", run + "built", "", 0, `^built`},
		{"network create", "network create n", "", 0, `^[0-9a-f]{64}`},
		{"run --detach", "run -d --name web --network n -p 18080:80 --health-cmd true --health-interval 1s bb:1",
			"echo line; mkdir /www; echo page >/www/index.html; httpd -p 80 -h /www; trap 'exit 3' TERM; while :; do sleep 0.1; done", 0, `^[0-9a-f]{64}`},
		{"another container, by its name", "run --rm --network n bb:1 wget -q -O - http://web/", "", 0, `^page$`},
		{"exec", "exec web", "echo inside; exit 3", 3, `^inside`},
		{"exec, missing command", "exec web nosuch", "", 126, `no such file or directory|not found`},
		{"exec, user and directory", "exec -u 7 -w /tmp -e A=b web", "echo $(id -u)-$PWD-$A", 0, `^7-/tmp-b$`},
		{"logs", "logs web", "", 0, `^line`},
		{"stats", "stats --no-stream --no-trunc --format {{.PIDs}}/{{.MemUsage}} web", "", 0, `^[1-9]\d*/[1-9]`},
		{"top", "top web", "", 0, `UID +PID`},
		{"update", "update -m 64m --memory-swap 128m --cpus 0.5 --pids-limit 50 web", "", 0, `^web`},
		{"pause", "pause web", "", 0, `^web`},
		{"inspect, paused", "inspect --format {{.State.Status}} web", "", 0, `^paused`},
		{"unpause", "unpause web", "", 0, `^web`},
		{"cp", "cp web:/www/index.html -", "", 0, `page`},
		{"restart", "restart -t 10 web", "", 0, `^web`},
		{"kill", "kill -s TERM web", "", 0, `^web`},
		{"wait", "wait web", "", 0, `^3$`},
		{"--restart", "run -d --name again --network none --restart on-failure:2 bb:1 false", "", 0, `^[0-9a-f]{64}`},
		{"terminal", "run -d -t --name tty --network none bb:1 tty", "", 0, `^[0-9a-f]{64}`},
	}, docker)
	says := func(text string, args ...string) {
		t.Helper()
		awaitTrue(t, text, func() bool { return strings.TrimSpace(finish(t, d.docker(args...)).stdout) == text })
	}
	engineFeature(t, "terminal", func(t *testing.T) { says("/dev/pts/0", "logs", "tty") })
	engineFeature(t, "--restart", func(t *testing.T) {
		says("2/exited", "inspect", "--format", "{{.RestartCount}}/{{.State.Status}}", "again")
	})
	engineFeature(t, "start again", func(t *testing.T) { finish(t, d.docker("start", "web")).want(t, 0) })
	engineFeature(t, "healthcheck", func(t *testing.T) { says("healthy", "inspect", "--format", "{{.State.Health.Status}}", "web") })
	engineFeature(t, "-p", func(t *testing.T) {
		finish(t, d.command("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18080/")).want(t, 0, `^page$`)
	})
	if os.Getenv("CAISSON_ENGINES_PAGE") != "" { // it takes as long as all others together
		engineFeature(t, "compose of two services", func(t *testing.T) { d.compose(t) })
	}
	finish(t, d.docker("rm", "-f", "web", "tty", "again", "oom")).want(t, 0)
}

// composition is two services, of which one asks the other by its name.
const composition = `version: "2.4"
services:
  server:
    image: bb:1
    command: sh -c "mkdir /www; echo composed >/www/index.html; exec httpd -f -p 80 -h /www"
  client:
    image: bb:1
    depends_on: [server]
    command: sh -c "until wget -q -O - http://server/; do sleep 0.1; done"
`

func (d *daemon) compose(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Skip("Docker is not installed: no docker-compose")
	}
	dir := filepath.Join(d.dir, "compose")
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "docker-compose.yml"), []byte(composition), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	compose := func(args ...string) result {
		return finish(t, d.command(append([]string{"docker-compose", "--no-ansi", "-H", "unix://" + d.dir + "/sock", "-f", dir + "/docker-compose.yml"}, args...)...))
	}
	compose("up", "-d").want(t, 0)
	awaitTrue(t, "the client has its answer", func() bool { return strings.Contains(compose("logs", "client").stdout, "composed") })
	compose("ps").want(t, 0, `server.* Up`)
	compose("down", "-t", "0").want(t, 0)
}
