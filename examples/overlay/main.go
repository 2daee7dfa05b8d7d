// Command overlay shows containers of two hosts on one network: what they send each other goes in UDP packets between the
// hosts (VXLAN), which learn of each other's containers by a directory that they share.
//
//	go run ./examples/overlay
//
// The wire, both hosts and both containers are network namespaces that end with the program. So nothing of the machine is
// touched, and an ordinary user can run it, as root of a user namespace. Linux 5.14 with VXLAN.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/netns"
)

func main() {
	log.SetFlags(0)
	if err := start(); err != nil {
		log.Fatal(err)
	}
}

// start becomes root of a user namespace first if need be.
func start() error {
	if os.Geteuid() == 0 {
		return lesson(context.Background())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := namespaces.Command(self)
	cmd.Set = namespaces.HostSet()
	cmd.Set.User = namespaces.New()
	cmd.Set.Net = namespaces.New()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// unrecorded is for what ends with the program by itself: nobody has to undo it.
type unrecorded struct{}

func (unrecorded) Add(string, int, []byte) (uint64, error) { return 1, nil }
func (unrecorded) Done(uint64) error                       { return nil }

// host is one of the two.
type host struct {
	ns        *netns.Namespace
	local     netip.Addr // on the wire
	container *netns.Namespace
	overlay   *netns.Overlay
	wire      *netns.Connection
	member    *netns.Connection
}

func (h *host) address() netip.Addr { return h.member.Status()[0].Addresses[0].Addr() }

func lesson(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "caisson-overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shared := dir + "/shared"
	if err := os.Mkdir(shared, 0o700); err != nil {
		return err
	}
	var made [5]*netns.Namespace
	for i := range made {
		if made[i], err = netns.New(); err != nil {
			return err
		}
		defer made[i].Close()
	}
	wire, err := netns.NewBridge(netns.BridgeConfig{Name: "wire", Host: made[0], Subnets: subnets("192.0.2.0/24"), Internal: true, StateDir: dir + "/state", Journal: unrecorded{}})
	if err != nil {
		return err
	}

	fmt.Println("1. Two hosts are on one wire. Each has a container, which reaches nothing.")
	hosts := [2]*host{}
	for i := range hosts {
		h := &host{ns: made[1+i], container: made[3+i], local: netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})}
		hosts[i] = h
		if err := h.plug(ctx, wire, i); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.wire.Detach(ctx)) }()
		fmt.Printf("   host %d is %v\n", i+1, h.local)
	}

	fmt.Println("2. Both make the network \"web\": one subnet, a part of it for each host.")
	for i, h := range hosts {
		part := fmt.Sprintf("10.0.%d.0/24", i+1)
		h.overlay, err = netns.NewOverlay(netns.OverlayConfig{Name: "web", Subnets: subnets("10.0.0.0/16"), Ranges: subnets(part), VNI: 100, Local: h.local,
			Peers: netns.NewPeerStore(netns.Directory(shared), "web/"), Host: h.ns, StateDir: dir + "/state", Journal: unrecorded{}})
		if err != nil {
			return err
		}
		n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: h.overlay}}}
		if h.member, err = n.Connect(ctx, h.container, fmt.Sprintf("c%d", i+1)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.member.Detach(ctx)) }()
		fmt.Printf("   the container of host %d is %v\n", i+1, h.address())
		if err := serve(ctx, h.container, fmt.Sprintf("c%d", i+1)); err != nil {
			return err
		}
	}
	one, two := hosts[0], hosts[1]

	fmt.Println("3. They hear of each other, and the kernel is told where the other's container is.")
	if err := until(func() bool { return knows(one, two) && knows(two, one) }); err != nil {
		return err
	}
	for _, h := range one.overlay.Peers() {
		for _, e := range h.Endpoints {
			fmt.Printf("   host 1 knows: %v at %v is %s\n", e.Names, e.Addresses, h.Local)
		}
	}
	fmt.Println("   c1 to c2:", tried(ctx, one.container, netip.AddrPortFrom(two.address(), 80), time.Minute))
	fmt.Println("   c2 to c1:", tried(ctx, two.container, netip.AddrPortFrom(one.address(), 80), time.Minute))

	fmt.Println("4. Host 2 is lost, and returns.")
	if err := two.wire.Detach(ctx); err != nil {
		return err
	}
	fmt.Println("   c1 to c2:", tried(ctx, one.container, netip.AddrPortFrom(two.address(), 80), 2*time.Second))
	if err := two.plug(ctx, wire, 1); err != nil {
		return err
	}
	err = until(func() bool {
		return strings.HasPrefix(tried(ctx, one.container, netip.AddrPortFrom(two.address(), 80), 2*time.Second), "c2")
	})
	fmt.Println("   c1 to c2:", tried(ctx, one.container, netip.AddrPortFrom(two.address(), 80), time.Minute))
	return err
}

// plug connects a host to the wire.
func (h *host) plug(ctx context.Context, wire *netns.Bridge, i int) (err error) {
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: wire, Addresses: []netip.Addr{h.local}}}}
	h.wire, err = n.Connect(ctx, h.ns, fmt.Sprintf("host%d", i+1))
	return err
}

// knows says that one host has heard of the other's container.
func knows(h, other *host) bool {
	for _, p := range h.overlay.Peers() {
		if p.Local == other.local && len(p.Endpoints) == 1 {
			return true
		}
	}
	return false
}

func subnets(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

// until waits for what is going to be.
func until(ok func() bool) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return errors.New("the hosts do not hear of each other")
}

// serve tells whoever connects who he is.
func serve(ctx context.Context, ns *netns.Namespace, name string) error {
	l, err := ns.Listen(ctx, "tcp4", ":80")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s says: you are %s", name, host)
			c.Close()
		}
	}()
	return nil
}

// tried connects and returns what was said, or why not.
func tried(ctx context.Context, from *netns.Namespace, to netip.AddrPort, patience time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", to.String())
	if err != nil {
		return "no: " + err.Error()[strings.LastIndex(err.Error(), ": ")+2:]
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
