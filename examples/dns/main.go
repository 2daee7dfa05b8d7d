// Command dns shows how containers find each other: by name and alias, forwards and backwards, and who answers for the rest.
//
//	go run ./examples/dns
//
// All of it happens in network namespaces: one plays the host, three the containers. So nothing of the machine is touched, and an
// ordinary user can run it, as root of a user namespace. Linux 5.14.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

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

func lesson(ctx context.Context) (err error) {
	state, err := os.MkdirTemp("", "caisson-dns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	host, err := netns.New()
	if err != nil {
		return err
	}
	defer host.Close()
	world, err := host.ListenPacket(ctx, "udp4", "127.0.0.1:53")
	if err != nil {
		return err
	}
	defer world.Close()
	go answer(world)

	lan, err := netns.NewBridge(netns.BridgeConfig{Name: "lan", Host: host, StateDir: state, Journal: unrecorded{},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24"), netip.MustParsePrefix("fd00:0:0:2::/64")}})
	if err != nil {
		return err
	}
	inside := map[string]*netns.Namespace{}
	for _, name := range []string{"first", "second", "client"} {
		n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: lan}}, DNS: netns.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}}}
		if name != "client" {
			n.Endpoints[0].Aliases = []string{"web"}
		}
		ns, err := netns.New()
		if err != nil {
			return err
		}
		defer ns.Close()
		a, err := n.Prepare(ctx, netns.Request{ID: name, Attended: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.Detach(ctx)) }()
		if err := a.Attach(ctx, netns.Target{Netns: ns.File()}); err != nil {
			return err
		}
		inside[name] = ns
	}
	// What a container has in its /etc/resolv.conf: nameserver 127.0.0.11.
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return inside["client"].Dial(ctx, network, "127.0.0.11:53")
	}}
	fmt.Println("1. The others have names, alone and with the network's as domain.")
	ask(ctx, r, "first")
	ask(ctx, r, "second.lan")
	fmt.Println("2. A name that several share is answered with all of them, each in turn the first.")
	ask(ctx, r, "web")
	fmt.Println("3. Addresses have names.")
	back, err := r.LookupAddr(ctx, "10.0.2.2")
	fmt.Println("   10.0.2.2 is", strings.Join(back, " "), text(err))
	fmt.Println("4. The rest is asked of the host's resolvers, from the host: they may be on its loopback addresses.")
	ask(ctx, r, "example.org")
	ask(ctx, r, "nowhere.example.org")
	return nil
}

func ask(ctx context.Context, r *net.Resolver, name string) {
	l, err := r.LookupHost(ctx, name+".")
	slices.Sort(l)
	fmt.Printf("   %s is %s%s\n", name, strings.Join(l, " "), text(err))
}

func text(err error) string {
	var e *net.DNSError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e) && e.IsNotFound:
		return "unknown"
	}
	return err.Error()
}

// answer is a resolver of the world, which knows example.org.
func answer(c net.PacketConn) {
	b := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		switch {
		case q.Name.String() != "example.org.":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
		}
		if out, err := m.Pack(); err == nil {
			_, _ = c.WriteTo(out, from)
		}
	}
}
