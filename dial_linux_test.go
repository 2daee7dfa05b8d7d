package caisson

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// readAll reads a connection to its end.
func readAll(t *testing.T, c net.Conn) string {
	t.Helper()
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(testTime)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// dials connects until there is somebody to connect to.
func dials(t *testing.T, c *Container, network, address string) net.Conn {
	t.Helper()
	for ctx := testContext(t); ; time.Sleep(20 * time.Millisecond) {
		conn, err := c.Dial(ctx, network, address)
		if err == nil {
			return conn
		}
		if ctx.Err() != nil || !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
}

func TestDial(t *testing.T) {
	for name, opts := range map[string][]Option{"default": nil, "userns": {WithNamespace(namespaces.User, namespaces.New())}, "pids": {WithNamespace(namespaces.PID, namespaces.Host())}} {
		t.Run(name, func(t *testing.T) {
			if err := newContainer(t, append([]Option{WithCommand("true")}, opts...)...).Run(testContext(t)); err != nil {
				t.Fatal(err) // this made what the program keeps
			}
			noLeaks(t)
			c := newContainer(t, append([]Option{sh("nc -l -p 81 -e echo from within & nc -l -p 82 -s ::1 -e echo over six & sleep 1000")}, opts...)...)
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, dials(t, c, "tcp", "127.0.0.1:81")); got != "from within\n" {
				t.Errorf("%q", got)
			}
			_, err := c.Dial(testContext(t), "tcp4", "localhost:83")
			var oe *net.OpError
			if !errors.As(err, &oe) || oe.Op != "dial" || !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%v", err)
			}
			if n := testutil.Take()["children"]; n > 1 {
				t.Errorf("%d children", n)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if _, err := c.Dial(testContext(t), "tcp", "127.0.0.1:81"); !errors.Is(err, ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		})
	}
}

func TestListen(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	for _, address := range []string{"127.0.0.1:80", ":0", "[::1]:0"} {
		l, err := c.Listen(testContext(t), "tcp", address)
		if noFamily(err) {
			continue // no IPv6 here
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.WriteString(conn, "from without\n")
				conn.Close()
			}
		}()
		port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		host := "127.0.0.1"
		if address == "[::1]:0" {
			host = "::1"
		}
		if got := readAll(t, dials(t, c, "tcp", net.JoinHostPort(host, port))); got != "from without\n" {
			t.Errorf("%s: %q", address, got)
		}
		if address != ":0" { // what listens is not on the host
			if conn, err := net.Dial("tcp", net.JoinHostPort(host, port)); err == nil {
				conn.Close()
				t.Errorf("%s is reached from the host", address)
			}
		}
		l.Close()
	}
	l, err := c.Listen(testContext(t), "tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := c.Listen(testContext(t), "tcp", "127.0.0.1:80"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			_, _ = io.WriteString(conn, "served by the host\n")
			conn.Close()
		}
	}()
	if out, _ := execs(t, c, "nc 127.0.0.1 80 </dev/null"); out != "served by the host\n" {
		t.Errorf("%q", out)
	}
	<-done
}

func TestListenPacket(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	p, err := c.ListenPacket(testContext(t), "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	conn, err := c.Dial(testContext(t), "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	n, from, err := p.ReadFrom(b)
	if err != nil || string(b[:n]) != "hello" || from.String() != conn.LocalAddr().String() {
		t.Errorf("%q %v %v", b[:n], from, err)
	}
}

func TestDialUnix(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	for _, address := range []string{"/tmp/a socket", "/in the root", "@abstract"} {
		l, err := c.Listen(testContext(t), "unix", address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if conn, err := l.Accept(); err == nil {
				_, _ = io.WriteString(conn, "here")
				conn.Close()
			}
		}()
		conn, err := c.Dial(testContext(t), "unix", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, conn); got != "here" {
			t.Errorf("%s: %q", address, got)
		}
		l.Close()
	}
	if out, _ := execs(t, c, "stat -c '%F %a %u' '/tmp/a socket'"); out != "socket 755 0\n" {
		t.Errorf("%q", out)
	}
	if _, err := c.Listen(testContext(t), "unix", "/tmp/a socket"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	if _, err := c.Dial(testContext(t), "unix", "/tmp/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A link inside leads nowhere but inside, also where the container sees the host's processes.
func TestDialUnixHostile(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "host.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pid := strconv.Itoa(os.Getpid())
	for name, opts := range map[string][]Option{"default": nil, "pids": {WithNamespace(namespaces.PID, namespaces.Host())}} {
		t.Run(name, func(t *testing.T) {
			c := runs(t, opts...)
			execs(t, c, "ln -s /proc/"+pid+"/root"+dir+"/host.sock /tmp/s; ln -s /proc/"+pid+"/root"+dir+" /tmp/d; ln -s ../../../../.."+dir+"/host.sock /tmp/up")
			for _, path := range []string{"/tmp/s", "/tmp/d/host.sock", "/tmp/up", "/../../../" + dir + "/host.sock"} {
				if conn, err := c.Dial(testContext(t), "unix", path); err == nil {
					conn.Close()
					t.Errorf("%s leads out", path)
				}
				if l, err := c.Listen(testContext(t), "unix", path+"2"); err == nil && path != "/tmp/s" && path != "/tmp/up" {
					l.Close()
					t.Errorf("%s2 leads out", path)
				} else if err == nil {
					l.Close()
				}
			}
			if files, err := filepath.Glob(filepath.Join(dir, "*2")); err != nil || len(files) > 0 {
				t.Errorf("made on the host: %v, %v", files, err)
			}
		})
	}
}

// The end of the context ends a connecting that hangs, and nothing remains.
func TestDialGivenUp(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	l, err := c.Listen(testContext(t), "unix", "/tmp/full")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rc, err := l.(*net.UnixListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	first, err := c.Dial(testContext(t), "unix", "/tmp/full") // fills the queue
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Dial(ctx, "unix", "/tmp/full"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestDialRefuses(t *testing.T) {
	c := newContainer(t, WithCommand("true"))
	if _, err := c.Dial(testContext(t), "tcp", "127.0.0.1:80"); !errors.Is(err, ErrState) {
		t.Errorf("%v", err)
	}
	for _, a := range [][2]string{{"tcp", "example.org:80"}, {"tcp", "127.0.0.1"}, {"tcp", "127.0.0.1:0"}, {"tcp4", "[::1]:80"}, {"tcp6", "127.0.0.1:80"},
		{"tcp", "[fe80::1%eth0]:80"}, {"ip", "127.0.0.1"}, {"", ""}, {"unix", ""}, {"unix", "relative"}, {"unix", "/dir/"}, {"unix", "/a/.."},
		{"unix", "@" + strings.Repeat("x", 108)}, {"unix", "/" + strings.Repeat("x", 108)}, {"unix", "/a\x00b"}, {"udp", "127.0.0.1:none-such"}} {
		_, err := c.Dial(testContext(t), a[0], a[1])
		var oe *net.OpError
		if !errors.As(err, &oe) || errors.Is(err, ErrState) {
			t.Errorf("%q: %v", a, err)
		}
	}
	for _, network := range []string{"udp", "unixgram"} {
		if _, err := c.Listen(testContext(t), network, map[string]string{"udp": ":80", "unixgram": "/s"}[network]); !errors.As(err, new(net.UnknownNetworkError)) {
			t.Errorf("%v", err)
		}
	}
	if _, err := c.ListenPacket(testContext(t), "tcp", ":80"); !errors.As(err, new(net.UnknownNetworkError)) {
		t.Errorf("%v", err)
	}
}
