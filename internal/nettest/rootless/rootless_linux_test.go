package rootless

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
)

func TestMain(m *testing.M) { testutil.Main(m, map[string]func(){"rootless": roleRootless}) }

var testTime = testutil.Time(60 * time.Second)

// nobody is who root plays.
const nobody = 65534

// What an ordinary user can do in namespaces of his own.
func TestRootless(t *testing.T) {
	cmd := testutil.Role("rootless")
	if os.Getuid() == 0 {
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("%v\n%s", err, out)
	}
}

func roleRootless() {
	// Of a package that is to be judged by what it returns, all is tried.
	check := func(what string, err error) {
		if err != nil {
			fmt.Printf("error %s: %v\n", what, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	n, err := netns.New()
	if err != nil {
		fmt.Println("error", err)
		return
	}
	defer n.Close()
	ran := false
	err = n.Do(func() error { ran = true; return nil })
	var e *netns.Error
	if ran || !errors.Is(err, netns.ErrPrivilege) || !errors.Is(err, unix.EPERM) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "Listen") {
		fmt.Println("error Do:", ran, err)
	}
	own, err := netns.Current()
	check("current", err)
	check("one's own", own.Do(func() error { return nil }))
	first, err := n.Cookie()
	check("cookie", err)
	second, err := own.Cookie()
	check("own cookie", err)
	if first == second || first == 0 {
		fmt.Println("error: the same namespace", first)
	}
	check("loopback", n.LoopbackUp())
	for _, network := range []string{"tcp", "tcp4", "tcp6", "unix", "unixpacket"} {
		check(network, rootlessStreams(ctx, n, network))
	}
	for _, network := range []string{"udp", "udp4", "udp6", "unixgram"} {
		check(network, rootlessPackets(ctx, n, network))
	}
	check("zone", rootlessZone(ctx, n))
	check("ping", rootlessPing(ctx, n))
	check("frames", rootlessFrames(ctx, n))
	rootlessRefusals(ctx, n)
	fmt.Println("done")
}

// rootlessStreams makes a connection inside, to a port that an ordinary user cannot listen on outside.
func rootlessStreams(ctx context.Context, n *netns.Namespace, network string) error {
	address := map[string]string{"tcp4": "127.0.0.1:80", "tcp6": "[::1]:80", "tcp": ":80"}[network]
	if address == "" {
		address = "@caisson-rootless"
	}
	l, err := n.Listen(ctx, network, address)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.WriteString(c, "inside")
			c.Close()
		}
	}()
	to := []string{address}
	if network == "tcp" {
		to = []string{"127.0.0.1:80"}
	}
	for _, a := range to {
		c, err := n.Dial(ctx, network, a)
		if err != nil {
			return err
		}
		defer c.Close()
		b := make([]byte, 10)
		if k, err := io.ReadAtLeast(c, b, 6); err != nil || string(b[:k]) != "inside" {
			return fmt.Errorf("%q %w", b[:k], err)
		}
	}
	return nil
}

func rootlessPackets(ctx context.Context, n *netns.Namespace, network string) error {
	address := map[string]string{"udp": "127.0.0.1:53", "udp4": "127.0.0.1:53", "udp6": "[::1]:53"}[network]
	if address == "" {
		address = "@caisson-packets"
	}
	p, err := n.ListenPacket(ctx, network, address)
	if err != nil {
		return err
	}
	defer p.Close()
	c, err := n.Dial(ctx, network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = p.SetDeadline(time.Now().Add(testTime))
	if _, err := c.Write([]byte("inside")); err != nil {
		return err
	}
	b := make([]byte, 10)
	if k, _, err := p.ReadFrom(b); err != nil || string(b[:k]) != "inside" {
		return fmt.Errorf("%q %w", b[:k], err)
	}
	return nil
}

// rootlessZone names a device inside, without which the kernel takes no address of a link.
func rootlessZone(ctx context.Context, n *netns.Namespace) error {
	for _, zone := range []string{"lo", "1"} {
		p, err := n.ListenPacket(ctx, "udp6", "[ff02::1%"+zone+"]:5353")
		if err != nil {
			return err
		}
		p.Close()
	}
	if _, err := n.Dial(ctx, "tcp", "[fe80::1%none]:80"); !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("a device that is not there: %w", err)
	}
	return nil
}

// rootlessPing sends an echo request by a raw socket, which the kernel answers.
func rootlessPing(ctx context.Context, n *netns.Namespace) error {
	p, err := n.ListenPacket(ctx, "ip4:icmp", "127.0.0.1")
	if err != nil {
		return err
	}
	defer p.Close()
	_ = p.SetDeadline(time.Now().Add(testTime))
	if _, err := p.WriteTo([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return err
	}
	for range 2 { // the request itself arrives as well
		b := make([]byte, 100)
		k, _, err := p.ReadFrom(b)
		if err != nil {
			return err
		}
		if k > 0 && b[0] == 0 {
			return nil
		}
	}
	return errors.New("no answer")
}

func rootlessFrames(ctx context.Context, n *netns.Namespace) error {
	if _, err := n.ListenFrames("nothing", 3); !errors.Is(err, netns.ErrNotFound) {
		return fmt.Errorf("a device that is not there: %v", err)
	}
	f, err := n.ListenFrames("lo", unix.ETH_P_IP)
	if err != nil {
		return err
	}
	defer f.Close()
	_ = f.SetDeadline(time.Now().Add(testTime))
	c, err := n.Dial(ctx, "udp", "127.0.0.1:9")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("frame")); err != nil {
		return err
	}
	b := make([]byte, 2000)
	k, err := f.Read(b)
	if err == nil && (k < 14 || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP) {
		err = fmt.Errorf("%x", b[:k])
	}
	return err
}

// rootlessRefusals are those of package net, and of what belongs to others.
func rootlessRefusals(ctx context.Context, n *netns.Namespace) {
	expect := func(what string, err, want error) {
		if !errors.Is(err, want) {
			fmt.Printf("error %s: %v\n", what, err)
		}
	}
	_, err := n.Dial(ctx, "tcp", "127.0.0.1:81")
	expect("nobody listens", err, unix.ECONNREFUSED)
	_, err = n.Dial(ctx, "udp", "192.0.2.1:81")
	expect("no route", err, unix.ENETUNREACH)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = n.Dial(ended, "tcp", "127.0.0.1:81")
	expect("context", err, context.Canceled)
	var op *net.OpError
	if _, err = n.Listen(ctx, "udp", ":0"); !errors.As(err, &op) {
		fmt.Println("error connections of udp:", err)
	}
	if _, err = n.ListenPacket(ctx, "tcp", ":0"); !errors.As(err, &op) {
		fmt.Println("error packets of tcp:", err)
	}
	l, err := n.Listen(ctx, "tcp", ":82")
	if err == nil {
		_, err = n.Listen(ctx, "tcp", ":82")
		expect("port in use", err, unix.EADDRINUSE)
		l.Close()
	} else {
		fmt.Println("error", err)
	}
	expect("name", n.Pin("caisson-rootless"), netns.ErrPrivilege)
	dir, err := os.MkdirTemp("", "caisson-")
	if err != nil {
		fmt.Println("error", err)
		return
	}
	defer os.RemoveAll(dir)
	web, err := netns.NewBridge(netns.BridgeConfig{Name: "web", StateDir: dir + "/state"})
	if err == nil {
		_, err = (&netns.Networks{Endpoints: []netns.Endpoint{{Network: web}}}).Connect(ctx, n, "")
	}
	expect("a bridge", err, netns.ErrPrivilege)
	if left, err := os.ReadDir(dir + "/state"); err != nil || len(left) > 0 {
		fmt.Println("error: left of a bridge:", left, err)
	}
}
