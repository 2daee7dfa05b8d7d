// Command net shows what connects containers: namespaces, pairs of devices, a bridge, NAT and a published port.
//
//	go run ./examples/net
//
// All of it happens in network namespaces of its own: one plays the world, one the host, two the containers. So nothing of
// the machine is touched, and an ordinary user can run it, as root of a user namespace. Linux 5.14.
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

func lesson(ctx context.Context) (err error) {
	state, err := os.MkdirTemp("", "caisson-net-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	var made [4]*netns.Namespace
	for i := range made {
		if made[i], err = netns.New(); err != nil {
			return err
		}
		defer made[i].Close()
	}
	world, host, web, client := made[0], made[1], made[2], made[3]
	undo := func(c *netns.Connection) { err = errors.Join(err, c.Detach(ctx)) }

	fmt.Println("1. A network namespace is alone.")
	show("web", web)
	fmt.Printf("   client to 10.0.2.2: %v\n", tried(ctx, client, netip.MustParseAddrPort("10.0.2.2:80"), time.Minute))

	fmt.Println("2. A bridge connects them: each has one end of a pair of devices, the bridge the other.")
	wan, err := connect(ctx, host, "host", netns.BridgeConfig{Name: "wan", Host: world, Subnets: subnet("192.0.2.0/24"), HostAccess: true, StateDir: state, Journal: unrecorded{}})
	if err != nil {
		return err
	}
	defer undo(wan)
	lan := netns.BridgeConfig{Name: "lan", Host: host, Subnets: subnet("10.0.2.0/24"), StateDir: state, Journal: unrecorded{}}
	first, err := connect(ctx, web, "web", lan, netns.Port{Container: 80, Host: 8080})
	if err != nil {
		return err
	}
	defer undo(first)
	second, err := connect(ctx, client, "client", lan)
	if err != nil {
		return err
	}
	defer undo(second)
	show("web", web)
	show("host", host)

	if err := errors.Join(serve(ctx, web, "web"), serve(ctx, world, "the world")); err != nil {
		return err
	}
	webAddr, hostAddr := address(first), address(wan)
	fmt.Println("3. They reach each other: the server sees the client's own address.")
	fmt.Println("   client to web:", tried(ctx, client, netip.AddrPortFrom(webAddr, 80), time.Minute))
	fmt.Println("4. The world is reached with the host's address (NAT), for it knows no way back to another.")
	fmt.Println("   client to the world:", tried(ctx, client, netip.MustParseAddrPort("192.0.2.1:80"), time.Minute))
	fmt.Println("5. From the world only the published port of the host is reached; the server sees who asks.")
	fmt.Println("   the world to port 8080 of the host:", tried(ctx, world, netip.AddrPortFrom(hostAddr, 8080), time.Minute))
	fmt.Println("   the world to web itself:", tried(ctx, world, netip.AddrPortFrom(webAddr, 80), 2*time.Second))
	return nil
}

func subnet(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func connect(ctx context.Context, ns *netns.Namespace, name string, cfg netns.BridgeConfig, ports ...netns.Port) (*netns.Connection, error) {
	b, err := netns.NewBridge(cfg)
	if err != nil {
		return nil, err
	}
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: b, Ports: ports}}}
	return n.Connect(ctx, ns, name)
}

func address(c *netns.Connection) netip.Addr { return c.Status()[0].Addresses[0].Addr() }

// show prints the devices of a namespace, and their addresses.
func show(name string, ns *netns.Namespace) {
	var all []string
	err := ns.Do(func() error {
		devices, err := net.Interfaces()
		for _, d := range devices {
			text := d.Name
			addrs, _ := d.Addrs()
			for _, a := range addrs {
				if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
					text += " " + p.String()
				}
			}
			all = append(all, text)
		}
		return err
	})
	fmt.Printf("   %-6s has: %s\n", name, strings.Join(append(all, errText(err)...), ", "))
}

func errText(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
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
