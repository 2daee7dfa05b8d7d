package netns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

func netnsOf(t *testing.T, path string) string {
	t.Helper()
	l, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDo(t *testing.T) {
	testutil.NoLeaks(t)
	n := newNS(t)
	home := netnsOf(t, "/proc/self/ns/net")
	fault := errors.New("fault")
	var inside string
	if err := n.Do(func() error { inside = netnsOf(t, "/proc/thread-self/ns/net"); return fault }); err != fault {
		t.Error(err)
	}
	if inside == home {
		t.Error("not inside")
	}
	func() {
		defer func() {
			if v := recover(); v != "panic inside" {
				t.Errorf("recovered %v", v)
			}
		}()
		_ = n.Do(func() error { panic("panic inside") })
	}()
	exited := make(chan bool)
	go func() {
		defer close(exited)
		_ = n.Do(func() error { runtime.Goexit(); return nil })
		t.Error("Do returned")
	}()
	<-exited
	var left []string
	if !testutil.Eventually(testTime, func() bool { left = testutil.ThreadsElsewhere(); return len(left) == 0 }) { // a thread ends after its goroutine
		t.Errorf("threads are left: %q", left)
	}
}

func TestSockets(t *testing.T) {
	n := newNS(t)
	ctx := testContext(t)
	l, err := n.Listen(ctx, "tcp", "127.0.0.1:0") // the loopback device is up
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	}()
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error("reached from outside:", err)
	}
	c, err := n.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.Dial(ended, "tcp", l.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	testutil.NoLeaks(t)
	for path, want := range map[string]error{"/proc/self/ns/uts": ErrInvalid, "/dev/null": ErrInvalid, "/no/such": ErrNotFound, "/proc/self/ns/net": nil} {
		n, err := Open(path)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			if err := errors.Join(n.Close(), n.Close()); err != nil {
				t.Error(err)
			}
			if err := n.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		}
	}
	n := newNS(t)
	m, err := FromFile(n.File())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a, err := n.Cookie()
	b, err2 := m.Cookie()
	here, err3 := cookie()
	if a != b || a == here || a == 0 {
		t.Error(a, b, here, err, err2, err3)
	}
	if _, err := OfPID(0); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	self, err := OfPID(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if c, _ := self.Cookie(); c != here {
		t.Error("another namespace")
	}
}

// Names are those of ip-netns(8), both ways.
func TestNamed(t *testing.T) {
	n, err := NewNamed("cs-test")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if l, err := List(); !slices.Equal(l, []string{"cs-test"}) {
		t.Error(l, err)
	}
	if _, err := NewNamed("cs-test"); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	for _, bad := range []string{"", "..", "a/b", "-a", strings.Repeat("a", 256)} {
		if _, err := NewNamed(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	m, err := Named("cs-test")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x, _ := n.Cookie()
	if y, _ := m.Cookie(); x != y {
		t.Error("another namespace")
	}
	if ip, err := exec.LookPath("ip"); err == nil {
		if out, err := exec.Command(ip, "netns", "list").CombinedOutput(); !strings.Contains(string(out), "cs-test") {
			t.Errorf("ip netns list: %s %v", out, err)
		}
		if out, err := exec.Command(ip, "netns", "add", "cs-ip").CombinedOutput(); err != nil {
			t.Errorf("ip netns add: %s %v", out, err)
		} else if err := Remove("cs-ip"); err != nil {
			t.Error(err)
		}
		if out, err := exec.Command(ip, "netns", "delete", "cs-test").CombinedOutput(); err != nil {
			t.Errorf("ip netns delete: %s %v", out, err)
		}
	} else if err := Remove("cs-test"); err != nil {
		t.Error(err)
	}
	if err := Remove("cs-test"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := Named("cs-test"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// The zone of an address is a device inside, whatever number others have it under.
func TestZones(t *testing.T) {
	web := newBridge(t, BridgeConfig{Name: "zones"})
	server, c := connect(t, "server", Endpoint{Network: web, Interface: "cszone"})
	client, _ := connect(t, "client", Endpoint{Network: web, Interface: "csother"})
	mac := c.Status()[0].MAC
	own := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}) // RFC 4291, appendix A
	var l net.Listener
	var err error
	if !testutil.Eventually(testTime/2, func() bool { // the kernel makes it on its own time
		l, err = server.Listen(testContext(t), "tcp", netip.AddrPortFrom(own.WithZone("cszone"), 80).String())
		return err == nil
	}) {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "here")
			c.Close()
		}
	}()
	if got, err := ask(t, client.Dial, "tcp", own.WithZone("csother"), 80); got != "here" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := client.Dial(testContext(t), "tcp", netip.AddrPortFrom(own.WithZone("cszone"), 80).String()); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a device of another namespace: %v", err)
	}
}
