//go:build linux

package examples_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/websocket"
)

// cri is what a kubelet says to containerd (the Container Runtime Interface, runtime.v1).
type cri struct {
	*daemon
	t    *testing.T
	grpc *grpcClient
}

func (c *cri) call(method string, m pb) pb {
	c.t.Helper()
	out, err := c.grpc.call("runtime.v1.RuntimeService/"+method, m)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// podConfig is that of a pod with its network, whose containers log below a directory.
func (c *cri) podConfig(name string) pb {
	meta := pb{}.str(1, name).str(2, name+"-uid").str(3, "default")
	linux := pb{}.str(1, "/"+testNamespace()).msg(2, pb{}.msg(1, pb{}.num(1, 0)))
	return pb{}.msg(1, meta).str(2, name+"-host").str(3, filepath.Join(c.dir, "logs")).msg(8, linux)
}

// container creates a container of a pod, with its log in a file named after it.
func (c *cri) container(pod string, config pb, name string, memory uint64, command ...string) string {
	c.t.Helper()
	resources := pb{}.num(3, 100)
	if memory > 0 {
		resources = resources.num(4, memory)
	}
	m := pb{}.msg(1, pb{}.str(1, name)).msg(2, pb{}.str(1, containerdImage)).list(3, command...).
		msg(6, pb{}.str(1, "GREETING").str(2, "hello")).str(11, name).msg(15, pb{}.msg(1, resources))
	_, id := c.call("CreateContainer", pb{}.str(1, pod).msg(2, m).msg(3, config)).get(1)
	c.call("StartContainer", pb{}.str(1, string(id)))
	return string(id)
}

// state returns a container's state (1 running, 2 exited), its exit status, and the reason.
func (c *cri) state(id string) (state, code uint64, reason string) {
	_, status := c.call("ContainerStatus", pb{}.str(1, id)).get(1)
	state, _ = status.get(3)
	code, _ = status.get(7)
	_, why := status.get(10)
	return state, code, string(why)
}

func (c *cri) awaitExit(id string) (code uint64, reason string) {
	awaitTrue(c.t, id+" has ended", func() bool {
		var state uint64
		state, code, reason = c.state(id)
		return state == 2
	})
	return code, reason
}

// exec runs a command in a container.
func (c *cri) exec(id string, command ...string) (out string, code uint64) {
	r := c.call("ExecSync", pb{}.str(1, id).list(2, command...).num(3, 60))
	_, b := r.get(1)
	code, _ = r.get(3)
	return string(b), code
}

// wantLog waits for a line in a container's log.
func (c *cri) wantLog(name, line string) {
	c.t.Helper()
	re := regexp.MustCompile(`(?m)^\S+ ` + line + `$`)
	awaitTrue(c.t, "the log of "+name+" has "+line, func() bool {
		b, err := os.ReadFile(filepath.Join(c.dir, "logs", name))
		return err == nil && re.Match(b)
	})
}

// forward sends a request to a port of a pod by a URL that containerd gave, and reads until an answer has come. The
// URL is one of the daemon's network.
func (c *cri) forward(url string, port int, request, until string) string {
	c.t.Helper()
	host := strings.SplitN(url, "/", 4)[2]
	pipe := c.command(append([]string{"busybox", "nc"}, strings.Split(host, ":")...)...)
	in, err := pipe.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := pipe.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := pipe.Start(); err != nil {
		c.t.Fatal(err)
	}
	defer pipe.Wait()
	defer pipe.Process.Kill()
	conf, err := websocket.NewConfig(strings.Replace(url, "http", "ws", 1)+fmt.Sprintf("?port=%d", port), "http://localhost")
	if err != nil {
		c.t.Fatal(err)
	}
	conf.Protocol = []string{"v4.channel.k8s.io"}
	ws, err := websocket.NewClient(conf, struct {
		io.Reader
		io.WriteCloser
	}{out, in})
	if err != nil {
		c.t.Fatal(err)
	}
	ws.PayloadType = websocket.BinaryFrame
	var got []byte
	for names := 0; !strings.HasSuffix(string(got), until); {
		var frame []byte
		if err := websocket.Message.Receive(ws, &frame); err != nil {
			c.t.Fatalf("%q: %v", got, err)
		}
		switch { // the channel, and on each the port at first
		case len(frame) == 3 && names < 2:
			if names++; names == 2 {
				if err := websocket.Message.Send(ws, append([]byte{0}, request...)); err != nil {
					c.t.Fatal(err)
				}
			}
		case len(frame) > 1 && frame[0] == 1:
			c.t.Fatalf("%q: %q", got, frame[1:])
		case len(frame) > 0:
			got = append(got, frame[1:]...)
		}
	}
	return string(got)
}

// TestOcirunCRI runs a pod as Kubernetes does.
func TestOcirunCRI(t *testing.T) {
	needEngine(t, "containerd", "containerd", "ctr")
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		t.Skip("the CNI plugins are not installed")
	}
	d := startContainerd(t)
	t.Cleanup(func() { removeGroups(t, testNamespace()) })
	c := &cri{d, t, newGRPC(t, filepath.Join(d.dir, "sock"))}
	config := c.podConfig("web")
	_, id := c.call("RunPodSandbox", pb{}.msg(1, config)).get(1)
	pod := string(id)

	server := c.container(pod, config, "server", 0, "sh", "-c", "echo $GREETING from $(hostname); echo no >&2; mkdir /www; echo page >/www/index.html; exec httpd -f -p 80 -h /www")
	engineFeature(t, "pods", func(t *testing.T) {
		if pod == "" || server == "" {
			t.Error("no pod, or no container in it")
		}
	})
	engineFeature(t, "logs", func(t *testing.T) {
		c.wantLog("server", "stdout F hello from web-host")
		c.wantLog("server", "stderr F no")
	})
	client := c.container(pod, config, "client", 0, "sleep", "100000")
	for _, x := range []struct {
		feature string
		command []string
		code    uint64
		says    string
	}{
		{"exec", []string{"sh", "-c", "echo inside; exit 3"}, 3, `^inside$`},
		{"a pod's containers share its network", []string{"wget", "-q", "-O", "-", "http://127.0.0.1/"}, 0, `^page$`},
		{"an address", []string{"ip", "address", "show", "eth0"}, 0, `inet 10\.88\.`},
		{"and, unless told otherwise, their processes", []string{"sh", "-c", "ps | grep [h]ttpd"}, 0, `httpd -f`},
	} {
		engineFeature(t, x.feature, func(t *testing.T) {
			if out, code := c.exec(client, x.command...); code != x.code || !regexp.MustCompile("(?m)"+x.says).MatchString(out) {
				t.Errorf("status %d, %q: want %d, %q", code, out, x.code, x.says)
			}
		})
	}
	engineFeature(t, "port-forward", func(t *testing.T) {
		_, url := c.call("PortForward", pb{}.str(1, pod).num(2, 80)).get(1)
		if got := c.forward(string(url), 80, "GET / HTTP/1.0\r\n\r\n", "\npage\n"); !strings.HasPrefix(got, "HTTP/1.") {
			t.Errorf("%q", got)
		}
	})
	engineFeature(t, "update", func(t *testing.T) {
		c.call("UpdateContainerResources", pb{}.str(1, client).msg(2, pb{}.num(4, 64<<20)))
	})
	engineFeature(t, "stats", func(t *testing.T) {
		_, stats := c.call("ContainerStats", pb{}.str(1, server)).get(1)
		_, memory := stats.get(3)
		if _, used := memory.get(2); len(used) == 0 {
			t.Errorf("% x", stats)
		}
	})
	engineFeature(t, "--memory, killed", func(t *testing.T) {
		id := c.container(pod, config, "greedy", 16<<20, "sh", "-c", "x=aaaaaaaaaaaa; while :; do x=$x$x; done")
		if code, why := c.awaitExit(id); code != 137 || why != "OOMKilled" {
			t.Errorf("%d, %s", code, why)
		}
	})
	engineFeature(t, "stop", func(t *testing.T) {
		c.call("StopContainer", pb{}.str(1, client).num(2, 0))
		if code, _ := c.awaitExit(client); code != 137 {
			t.Errorf("%d", code)
		}
		c.call("RemoveContainer", pb{}.str(1, client))
	})
	c.call("StopPodSandbox", pb{}.str(1, pod))
	if code, _ := c.awaitExit(server); code != 137 && code != 143 {
		t.Errorf("the server ended with %d", code)
	}
	c.call("RemovePodSandbox", pb{}.str(1, pod))
	if out, _ := d.ctr("-n", "k8s.io", "containers", "ls", "-q").Output(); strings.TrimSpace(string(out)) != "" {
		t.Errorf("left behind: %s", out)
	}
}

// cniConfig is a network with a bridge, of which only the daemon's own network namespace knows.
const cniConfig = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
	"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`

func writeCNI(t *testing.T, dir string) {
	t.Helper()
	err := os.MkdirAll(filepath.Join(dir, "cni"), 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "cni", "10-pods.conflist"), fmt.Appendf(nil, cniConfig, dir+"/ipam"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
