package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/netns"
)

// dockerNet is a daemon of Docker in the host's namespace, whose containers only pause: what is measured goes on in their network namespaces.
type dockerNet struct {
	e              *netEngine
	client, daemon string
	socket         string
}

const dockerImage = "bench:1"

func newDocker(w *workspace, client, daemon string) func(*netEngine) (networked, error) {
	return func(e *netEngine) (networked, error) {
		n := &dockerNet{e: e, client: client, daemon: daemon, socket: filepath.Join(e.dir, "sock")}
		if err := n.begin(); err != nil {
			return nil, err
		}
		pause, err := os.ReadFile(filepath.Join(w.bin, "pause"))
		if err != nil {
			return nil, err
		}
		var image bytes.Buffer
		t := tar.NewWriter(&image)
		err = t.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(pause))})
		if err == nil {
			_, err = t.Write(pause)
		}
		if err = errors.Join(err, t.Close()); err != nil {
			return nil, err
		}
		if _, err := n.run(&image, "import", "-", dockerImage); err != nil {
			return nil, err
		}
		args := []string{"network", "create", "-o", "com.docker.network.bridge.name=lan", "--ipv6"}
		for i, s := range lanSubnets {
			args = append(args, "--subnet", s.String(), "--gateway", lanHosts[i].String())
		}
		_, err = n.run(nil, append(args, "lan")...)
		return n, err
	}
}

// begin starts the daemon, in a mount namespace of its own, and has it end with the engine.
func (n *dockerNet) begin() error {
	dir := n.e.dir
	config, err := json.Marshal(map[string]any{"data-root": dir + "/root", "exec-root": dir + "/exec", "pidfile": dir + "/pid", "hosts": []string{"unix://" + n.socket},
		"exec-opts": []string{"native.cgroupdriver=cgroupfs"}, "cgroup-parent": "/" + n.group(), "storage-driver": "vfs", "bridge": "none", "experimental": true, "ip6tables": true,
		"default-ulimits": map[string]any{"nofile": map[string]any{"Name": "nofile", "Hard": 16384, "Soft": 4096}}})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("unshare", "-m", "--propagation", "private", n.daemon, "--config-file", path)
	cmd.Stdout, cmd.Stderr = log, log
	if err := n.e.host.Do(cmd.Start); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	n.e.undo = append(n.e.undo, func() error {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		return n.removeGroups()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = n.run(nil, "version"); err == nil {
			return nil
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("dockerd: %w: %s", err, text)
		}
	}
}

func (n *dockerNet) group() string { return "caisson-bench-docker-" + strconv.Itoa(os.Getpid()) }

// removeGroups removes the groups that the daemon leaves, in whatever hierarchies there are.
func (n *dockerNet) removeGroups() error {
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		all, err := filepath.Glob(pattern + n.group())
		if err != nil {
			return err
		}
		for _, dir := range all {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *dockerNet) run(stdin *bytes.Buffer, args ...string) (string, error) {
	cmd := exec.Command(n.client, append([]string{"-H", "unix://" + n.socket}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (n *dockerNet) attach(_ context.Context, _ *netns.Namespace, k int, publish bool) (*place, error) {
	name := fmt.Sprint("c", k)
	args := []string{"run", "-d", "--name", name, "--network", "lan"}
	if publish {
		args = append(args, "-p", fmt.Sprintf("%d:80", webPort), "-p", fmt.Sprintf("%d:5201", iperfPort))
	}
	if _, err := n.run(nil, append(args, dockerImage, "/pause")...); err != nil {
		return nil, err
	}
	remove := func() error {
		_, err := n.run(nil, "rm", "-f", name)
		return err
	}
	p := &place{host: lanHosts, web: webPort, iperf: iperfPort}
	err := n.describe(name, p)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	p.detach = func() error { return errors.Join(p.ns.Close(), remove()) }
	return p, nil
}

// describe tells a container's addresses, and opens its namespace.
func (n *dockerNet) describe(name string, p *place) error {
	out, err := n.run(nil, "inspect", "-f", "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", name)
	if err != nil {
		return err
	}
	f := strings.Fields(out)
	if len(f) != 3 {
		return fmt.Errorf("docker inspect: %q", out)
	}
	for _, s := range f[1:] {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return err
		}
		p.own = append(p.own, a)
	}
	pid, err := strconv.Atoi(f[0])
	if err != nil {
		return err
	}
	p.ns, err = netns.OfPID(pid)
	return err
}
