package nettest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/rootfs"
)

// Servers as people run them, one of each kind.
const (
	webProgram  = `echo hello from $(hostname) >/tmp/index.html && exec /usr/bin/python3 -m http.server --bind :: --directory /tmp 80`
	echoProgram = `/usr/bin/ncat -l -k -c 'read l; echo "$l"' 7 & exec /usr/bin/python3 -c 'import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 7))
while True:
	s.sendto(*s.recvfrom(1000))'`
	rateProgram = `exec /usr/bin/iperf3 -s -p 5201`
)

// place is where a client runs.
type place struct {
	name string
	run  func(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error
}

// Programs that are not ours serve in a container, and ask from its neighbour, from itself, from the host and from the host's network, by IPv4 and IPv6,
// by name, by address and by published port.
func TestRealPrograms(t *testing.T) {
	world, _ := connectHostToWorld(t)
	lan := hostAddresses(t, "eth0")
	web := newBridge(t, netns.BridgeConfig{Name: "web", HostAccess: true})
	start := func(t *testing.T, id, script string, listens []string, ports ...netns.Port) (*caisson.Container, []netip.Addr) {
		n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: web, Ports: ports}}}
		c, err := caisson.New(caisson.WithRootfs(rootfs.Host()), caisson.WithNetwork(n), caisson.WithID(id), caisson.WithCommand("sh", "-c", script), caisson.WithInit(true))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		awaitSockets(t, c, listens...)
		var addrs []netip.Addr
		for _, p := range n.Status()[0].Addresses {
			addrs = append(addrs, p.Addr())
		}
		return c, addrs
	}
	asker, _ := start(t, "asker", "exec sleep 100000", nil)
	neighbour := inContainer("the neighbour", asker)
	host := place{"the host", func(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
		return runProgram(ctx, nil, stdin, stdout, args)
	}}
	outside := place{"the world", func(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
		return runProgram(ctx, world, stdin, stdout, args)
	}}
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

	t.Run("curl", func(t *testing.T) {
		needPrograms(t, "curl", "python3")
		server, own := start(t, "server", webProgram, []string{"tcp6 0050"}, netns.Port{Container: 80, Host: 8080})
		curl := func(p place, args ...string) {
			t.Helper()
			out, err := p.output(append([]string{"/usr/bin/curl", "-q", "-sS", "-g", "--fail"}, args...)...)
			if err != nil || out != "hello from server\n" {
				t.Errorf("%s: %q: %q, %v", p.name, args, out, err)
			}
		}
		itself := inContainer("the server itself", server)
		for _, family := range []string{"-4", "-6"} {
			curl(neighbour, family, "http://server/")
			curl(neighbour, family, "http://server.web/")
			curl(itself, family, "http://localhost/")
		}
		for _, p := range []place{neighbour, itself, host} {
			for _, a := range own {
				curl(p, "http://"+netip.AddrPortFrom(a, 80).String()+"/")
			}
			for _, a := range lan {
				curl(p, "http://"+netip.AddrPortFrom(a, 8080).String()+"/")
			}
		}
		for i := range lan {
			curl(outside, "http://"+netip.AddrPortFrom(lan[i], 8080).String()+"/")
			curl(host, "http://"+netip.AddrPortFrom(loopback[i], 8080).String()+"/")
		}
	})
	t.Run("ncat", func(t *testing.T) {
		needPrograms(t, "ncat", "python3")
		server, own := start(t, "server", echoProgram, []string{"tcp 0007", "tcp6 0007", "udp6 0007"},
			netns.Port{Container: 7, Host: 7007}, netns.Port{Protocol: "udp", Container: 7, Host: 7007})
		ncat := func(p place, args ...string) {
			t.Helper()
			if err := p.echoes(append([]string{"/usr/bin/ncat"}, args...)...); err != nil {
				t.Errorf("%s: %q: %v", p.name, args, err)
			}
		}
		itself := inContainer("the server itself", server)
		for _, family := range []string{"-4", "-6"} {
			ncat(neighbour, family, "server", "7")
			ncat(neighbour, "-u", family, "server", "7")
		}
		for i := range lan {
			ncat(outside, lan[i].String(), "7007")
			ncat(host, "-u", own[i].String(), "7")
			ncat(host, "-u", loopback[i].String(), "7007")
			for _, p := range []place{neighbour, itself, host, outside} {
				ncat(p, "-u", lan[i].String(), "7007")
			}
		}
	})
	t.Run("iperf3", func(t *testing.T) {
		needPrograms(t, "iperf3")
		start(t, "server", rateProgram, []string{"tcp6 1451"}, netns.Port{Container: 5201, Host: 5202}, netns.Port{Protocol: "udp", Container: 5201, Host: 5202})
		iperf := func(p place, args ...string) {
			t.Helper()
			var out string
			var err error
			if !testutil.Eventually(testTime, func() bool { // one at a time: the server may not yet be done with the last
				out, err = p.output(append([]string{"/usr/bin/iperf3"}, args...)...)
				return err == nil && strings.Contains(out, "iperf Done.")
			}) {
				t.Errorf("%s: %q: %s %v", p.name, args, out, err)
			}
		}
		for _, args := range [][]string{{"-n", "1M"}, {"-n", "1M", "-R"}, {"-u", "-b", "0", "-n", "100K"}} {
			iperf(neighbour, append(args, "-4", "-c", "server")...)
			iperf(neighbour, append(args, "-6", "-c", "server")...)
			for _, a := range lan {
				iperf(outside, append(args, "-c", a.String(), "-p", "5202")...)
			}
			iperf(host, append(args, "-c", "::1", "-p", "5202")...)
		}
	})
	t.Run("dig", func(t *testing.T) {
		needPrograms(t, "dig")
		_, own := start(t, "server", "exec sleep 100000", nil)
		dig := func(want string, args ...string) {
			t.Helper()
			out, err := neighbour.output(append([]string{"/usr/bin/dig", "+short", "+timeout=60"}, args...)...)
			if err != nil || strings.TrimSpace(out) != want {
				t.Errorf("%q: %q, want %q: %v", args, out, want, err)
			}
		}
		for _, transport := range []string{"+notcp", "+tcp"} {
			dig(own[0].String(), transport, "server.web", "A")
			dig(own[1].String(), transport, "server.web", "AAAA")
			dig("server.", transport, "-x", own[0].String())
			dig("server.", transport, "-x", own[1].String())
		}
	})
}

// needPrograms skips the test unless the machine has the programs where a container of the host's finds them.
func needPrograms(t *testing.T, l ...string) {
	t.Helper()
	for _, p := range l {
		if _, err := os.Stat("/usr/bin/" + p); err != nil {
			t.Skipf("no %s in /usr/bin: install the package %s", p, map[string]string{"curl": "curl", "dig": "bind9-dnsutils", "iperf3": "iperf3", "ncat": "ncat", "python3": "python3"}[p])
		}
	}
}

// inContainer runs programs in a container.
func inContainer(name string, c *caisson.Container) place {
	return place{name, func(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
		p, err := c.Exec(ctx, caisson.WithCommand(args[0], args[1:]...), caisson.WithStdin(stdin), caisson.WithStdout(stdout), caisson.WithStderr(os.Stderr),
			caisson.WithContext(ctx), caisson.WithWaitDelay(time.Second))
		if err != nil {
			return err
		}
		r, err := p.Wait(context.Background())
		if err == nil && !r.Success() {
			err = errors.New(r.String())
		}
		return err
	}}
}

// runProgram runs one on the host, or in a namespace.
func runProgram(ctx context.Context, ns *netns.Namespace, stdin io.Reader, stdout io.Writer, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = stdin, stdout, os.Stderr, time.Second
	begin := cmd.Start
	if ns != nil {
		begin = func() error { return ns.Do(cmd.Start) }
	}
	if err := begin(); err != nil {
		return err
	}
	return cmd.Wait()
}

// output runs a program to its end.
func (p place) output(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	var out strings.Builder
	err := p.run(ctx, nil, &out, args...)
	return out.String(), err
}

// echoes runs a client until what it sends has come back, and ends it: a client of UDP does not end by itself.
func (p place) echoes(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	in, toClient, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	fromClient, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := p.run(ctx, in, out, args...)
		out.CloseWithError(err)
		ended <- err
	}()
	const line = "hello\n"
	_, err = io.WriteString(toClient, line)
	got, readErr := bufio.NewReader(fromClient).ReadString('\n')
	toClient.Close()
	cancel()
	end := <-ended
	if got == line && err == nil {
		return nil
	}
	return fmt.Errorf("it said %q: %w", got, errors.Join(err, readErr, end))
}

// awaitSockets waits until sockets listen in a container, each given as in "tcp6 0050": a file of /proc/net, and the port in it.
func awaitSockets(t *testing.T, c *caisson.Container, l ...string) {
	t.Helper()
	var missing string
	if !testutil.Eventually(testTime, func() bool {
		for _, s := range l {
			file, port, _ := strings.Cut(s, " ")
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", c.Process().Pid(), file))
			if err != nil || !listens(string(b), port) {
				missing = fmt.Sprint(s, " ", err)
				return false
			}
		}
		return true
	}) {
		t.Fatalf("nobody listens at %s", missing)
	}
}

// listens says that a line of /proc/net/tcp and its like is of a socket that waits at a port: with that as its own, and no peer.
func listens(table, port string) bool {
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], ":"+port) && strings.HasSuffix(f[2], ":0000") {
			return true
		}
	}
	return false
}
