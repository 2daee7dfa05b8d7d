package nettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/rootfs"
)

// ordinary is a user that needs no entry anywhere.
const ordinary = 54322

// An ordinary user's container reaches the world by pasta, and is reached by published ports. Root prepares the machine: a way to
// the world, and a tun device that everybody may open.
func TestPasta(t *testing.T) {
	testutil.NeedRoot(t)
	if insideUserNamespace() {
		t.Skip("needs root of the machine")
	}
	if _, err := exec.LookPath("pasta"); err != nil {
		t.Skip("pasta is not installed")
	}
	connectHostToWorld(t)
	if err := errors.Join(unix.Mknod("/run/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))), os.Chmod("/run/tun", 0o666),
		unix.Mount("/run/tun", "/dev/net/tun", "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(unix.Unmount("/dev/net/tun", unix.MNT_DETACH), os.Remove("/run/tun")) })

	dir, tmp := testutil.Busybox(t), t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chown(tmp, ordinary, ordinary), os.Chmod(tmp, 0o700)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, ordinary, ordinary))
	})
	if err != nil {
		t.Fatal(err)
	}
	run := func(what string) string {
		cmd := testutil.Role("pasta", "CAISSON_TEST_DIR="+dir, "CAISSON_TEST_DO="+what, "TMPDIR="+tmp, "HOME="+tmp, "XDG_RUNTIME_DIR="+tmp)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
		out, _ := cmd.Output()
		return string(out)
	}
	want := "127.0.0.1: hello from server\n::1: hello from server\ndatagrams: answered\nworld: the world\nworld by IPv6: the world\nits own published port: refused\nhost's loopback: refused\ndone\n"
	if got := run("use"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if n := pastas(tmp); n != 0 {
		t.Errorf("%d programs are left", n)
	}
	if got := run("die"); got != "made\n" || !testutil.Eventually(testTime, func() bool { return pastas(tmp) == 0 }) {
		t.Errorf("%s, %d programs", got, pastas(tmp))
	}
	// Killed when pasta stands, before anybody else knows of it.
	if err := os.WriteFile(filepath.Join(tmp, "pasta"), []byte("#!/bin/sh\npasta \"$@\"\nexec sh -c \"kill -KILL $PPID\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := run("be killed"); got != "" || pastas(tmp) > 1 { // late versions look themselves for what is left of the container
		t.Errorf("%s, %d programs", got, pastas(tmp))
	}
	if got := run("recover"); got != "done\n" || pastas(tmp) != 0 {
		t.Errorf("%s, %d programs", got, pastas(tmp))
	}

	// With a monitor the ports answer before and after the host program was killed, the container itself too: at the gateway's address, which HostAccess makes the host's.
	state := filepath.Join(tmp, "state")
	program, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(tmp, "monitor"), program, 0o755)
	}
	if err = errors.Join(err, os.Chown(filepath.Join(tmp, "monitor"), ordinary, ordinary)); err != nil {
		t.Fatal(err)
	}
	cmd := testutil.Role("monitored", "CAISSON_TEST_PASTA=1", "CAISSON_TEST_MONITOR="+filepath.Join(tmp, "monitor"), "CAISSON_TEST_DIR="+dir, "CAISSON_TEST_STATE="+state, "TMPDIR="+tmp, "HOME="+tmp, "XDG_RUNTIME_DIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	kill := untilMade(t, cmd)
	as := func(role string) *exec.Cmd {
		c := testutil.Role(role, "CAISSON_TEST_STATE="+state, "TMPDIR="+tmp, "HOME="+tmp, "XDG_RUNTIME_DIR="+tmp)
		c.SysProcAttr = cmd.SysProcAttr
		return c
	}
	all := func(when string) {
		t.Helper()
		for _, a := range append(hostAddresses(t, "eth0"), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()) {
			if got := get(t, client(nil), fmt.Sprintf("http://%s/", netip.AddrPortFrom(a, 8080))); got != "hello from server" {
				t.Errorf("%s, at %v: %q", when, a, got)
			}
		}
		const want = "hello from server\nhello from server\ndone\n"
		if out, err := as("hairpin").Output(); string(out) != want {
			t.Errorf("%s, from inside: %s %v", when, out, err)
		}
	}
	all("while the host program lives")
	kill()
	all("after it was killed")
	if out, err := as("remove").Output(); string(out) != "done\n" || pastas(tmp) != 0 {
		t.Errorf("%s, %v, %d programs", out, err, pastas(tmp))
	}
}

// roleHairpin has the container ask for its own published port at the addresses of the gateway.
func roleHairpin() {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	c, err := caisson.StateDir(os.Getenv("CAISSON_TEST_STATE")).Load(ctx, "server", netns.Owner())
	for _, at := range []string{"192.0.2.1", "[2001:db8:c5::1]"} {
		var said string
		if err == nil {
			said, err = fetch(client(c.Dial), "http://"+at+":8080/")
			fmt.Println(said)
		}
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("done")
}

// echoed asks for a datagram back until it comes.
func echoed(addr string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 100)
	for end := time.Now().Add(testTime); ; {
		if _, err = c.Write([]byte("hello")); err == nil {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			var n int
			if n, err = c.Read(b); err == nil && string(b[:n]) == "hello" {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("no answer from %s: %w", addr, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func insideUserNamespace() bool {
	b, _ := os.ReadFile("/proc/self/uid_map")
	return strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

// pastas counts the programs that note their process id below dir.
func pastas(dir string) (n int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		if b, _ := os.ReadFile(f); bytes.Contains(b, []byte("\x00"+dir)) && bytes.Contains(b, []byte("--config-net")) {
			n++
		}
	}
	return n
}

// connectHostToWorld gives the host a device that leads to the world, in which a web server is, until disconnect is called or the test ends.
func connectHostToWorld(t *testing.T) (world *netns.Namespace, disconnect func()) {
	t.Helper()
	world, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { world.Close() })
	host, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	wan := newBridge(t, netns.BridgeConfig{Name: "wan", Host: world, HostAccess: true, StateDir: filepath.Join(t.TempDir(), "wan"),
		Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:c5::/64")}})
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: wan}}}).Connect(testContext(t), host, "host")
	if err != nil {
		t.Fatal(err)
	}
	disconnect = func() { _ = c.Detach(context.Background()) }
	t.Cleanup(disconnect)
	l, err := world.Listen(testContext(t), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the world\n") })}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return world, disconnect
}

// rolePasta is a program of an ordinary user.
func rolePasta() {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	do := os.Getenv("CAISSON_TEST_DO")
	if do == "recover" {
		_, err := caisson.Recover(ctx, netns.Owner())
		fail(err)
		fmt.Println("done")
		return
	}
	const datagrams = 5000
	n := &netns.Pasta{Ports: []netns.Port{{Container: 80}}}
	if do == "use" {
		n.Ports = append(n.Ports, netns.Port{Container: datagrams, Host: datagrams, Protocol: "udp"})
	}
	if do == "be killed" {
		n.Program = os.Getenv("HOME") + "/pasta"
	}
	c, err := caisson.New(caisson.WithRootfs(rootfs.Dir(os.Getenv("CAISSON_TEST_DIR"))), caisson.WithNetwork(n), caisson.WithID("server"), caisson.WithCommand("sh", "-c", webServer))
	fail(err)
	_, err = c.Start(ctx)
	fail(err)
	if do == "die" {
		fmt.Println("made")
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	ask := func(name string, client *http.Client, url string) {
		text, err := fetch(client, url)
		fmt.Println(name+":", text)
		fail(err)
	}
	for _, at := range []string{"127.0.0.1", "::1"} {
		ask(at, client(nil), fmt.Sprintf("http://%s/", netip.AddrPortFrom(netip.MustParseAddr(at), n.Published()[0].Host)))
	}
	echo, err := c.ListenPacket(ctx, "udp", fmt.Sprintf(":%d", datagrams))
	fail(err)
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := echo.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(b[:n], from)
		}
	}()
	for _, at := range []string{"127.0.0.1", "::1"} {
		fail(echoed(netip.AddrPortFrom(netip.MustParseAddr(at), datagrams).String()))
	}
	fmt.Println("datagrams: answered")
	ask("world", client(c.Dial), "http://192.0.2.1/")
	ask("world by IPv6", client(c.Dial), "http://[2001:db8:c5::1]/")
	// The host's addresses are the container's own, and there that port is nobody's.
	for _, host := range []string{"192.0.2.2", "2001:db8:c5::2"} {
		if c, err := c.Dial(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr(host), n.Published()[0].Host).String()); err == nil {
			c.Close()
			fmt.Println("reached a published port by", host)
		} else if !errors.Is(err, unix.ECONNREFUSED) {
			fail(err)
		}
	}
	fmt.Println("its own published port: refused")
	own, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	// Neither the address of the gateway nor the loopback address leads to the host's.
	for _, host := range []string{"192.0.2.1", "127.0.0.1"} {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if c, err := c.Dial(ctx, "tcp", fmt.Sprintf("%s:%d", host, own.Addr().(*net.TCPAddr).Port)); err == nil {
			c.Close()
			fmt.Println("reached the host's loopback by", host)
		}
	}
	fmt.Println("host's loopback: refused")
	fail(c.Close())
	fmt.Println("done")
}
