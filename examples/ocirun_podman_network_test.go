//go:build linux

package examples_test

import (
	"os"
	"testing"
)

// TestOcirunPodmanNetwork publishes a port by podman, which has a network, mounts and /run of its own meanwhile.
func TestOcirunPodmanNetwork(t *testing.T) {
	e := needPodman(t)
	needEngine(t, "podman", "iptables")
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		t.Skip("the CNI plugins are not installed")
	}
	d := startDaemon(t, e.dir, "sleep", "1000000")
	podman := func(args ...string) result {
		cmd := d.command(append(append([]string{"env"}, e.args...), args...)...)
		return (&runtimeOf{}).finishLeaving(t, cmd)
	}
	engineFeature(t, "-p", func(t *testing.T) {
		podman("run", "-d", "--name", "net", "-p", "18081:80", "localhost/bb", "sh", "-c", "mkdir /www; echo page >/www/index.html; exec httpd -f -p 80 -h /www").want(t, 0)
		awaitTrue(t, "the page", func() bool {
			out, _ := d.command("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18081/").Output()
			return string(out) == "page\n"
		})
		podman("rm", "-f", "-t", "0", "net").want(t, 0)
	})
}
