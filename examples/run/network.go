package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/netns/cni"
)

// network is what the command line says about the network.
type network struct {
	kind     string
	all      bool
	endpoint netns.Endpoint
	dns      netns.DNS
	hosts    []netns.Host
	handed   bool            // to the process that stays for the container
	joined   *netns.Networks // once one of these is used
	pasta    *netns.Pasta

	subnets   []netip.Prefix
	gateways  []netip.Addr
	plugins   string
	byPlugins *cni.Network
}

func (n *network) flags(f *flag.FlagSet) {
	const usage = "`NETWORK`: none (loopback only), host, pasta (for ordinary users), netns:NAME for one that ip netns made, " + kindsUsage
	n.moreFlags(f)
	f.StringVar(&n.kind, "net", "none", usage)
	f.StringVar(&n.kind, "network", "none", "the same as -net")
	both(f, "p", "publish", "publish `[ADDR:][HOSTPORT:]PORT[/udp]` on the host, ranges too; with -net bridge or pasta; may be repeated", func(s string) error {
		p, err := netns.ParsePort(s)
		n.endpoint.Ports = append(n.endpoint.Ports, p)
		return err
	})
	bothBool(f, &n.all, "P", "publish-all", "publish the ports that -image exposes on ports that are free; with -net bridge or pasta")
	f.Func("ip", "fixed `ADDRESS` on the bridge; may be repeated, for IPv6", func(s string) error {
		a, err := netip.ParseAddr(s)
		n.endpoint.Addresses = append(n.endpoint.Addresses, a)
		return err
	})
	f.Func("mac", "fixed hardware `ADDRESS`", func(s string) (err error) { n.endpoint.MAC, err = net.ParseMAC(s); return err })
	f.Func("alias", "further `NAME` on the network; may be repeated", func(s string) error {
		n.endpoint.Aliases = append(n.endpoint.Aliases, s)
		return nil
	})
	f.Func("dns", "`ADDRESS` of a resolver, instead of the host's; may be repeated", func(s string) error {
		a, err := netip.ParseAddr(s)
		n.dns.Servers = append(n.dns.Servers, netip.AddrPortFrom(a, 53))
		return err
	})
	f.Func("add-host", "add `NAME:ADDRESS` to /etc/hosts; may be repeated", func(s string) error {
		name, addr, _ := strings.Cut(s, ":")
		a, err := netip.ParseAddr(addr)
		n.hosts = append(n.hosts, netns.Host{Addr: a, Names: []string{name}})
		return err
	})
}

// expose publishes the ports that an image mentions, if that was asked for.
func (n *network) expose(ports []string) error {
	if !n.all {
		return nil
	}
	for _, text := range ports {
		p, err := netns.ParsePort(text)
		if err != nil {
			return fmt.Errorf("-P: %w", err)
		}
		n.endpoint.Ports = append(n.endpoint.Ports, p)
	}
	return nil
}

// options turns it into wishes.
func (n *network) options(ctx context.Context) ([]caisson.Option, error) {
	kind, name, _ := strings.Cut(n.kind, ":")
	if !ofNetns(kind) && len(n.endpoint.Addresses)+len(n.endpoint.MAC)+len(n.endpoint.Aliases) > 0 {
		return nil, errors.New("-ip, -mac and -alias need -net bridge")
	}
	if !ofNetns(kind) && !published(kind) && len(n.endpoint.Ports)+len(n.dns.Servers)+len(n.hosts) > 0 || !published(kind) && len(n.endpoint.Ports) > 0 {
		return nil, errors.New("-p, -dns and -add-host need -net bridge or -net pasta")
	}
	switch {
	case n.kind == "none":
		return nil, nil
	case n.kind == "host":
		return []caisson.Option{caisson.WithNamespace(namespaces.Net, namespaces.Host())}, nil
	case kind == "netns" && name != "":
		return []caisson.Option{caisson.WithNamespace(namespaces.Net, namespaces.JoinPath("/run/netns/"+name))}, nil
	case n.kind == "pasta":
		n.pasta = &netns.Pasta{Ports: n.endpoint.Ports, DNS: n.dns, Hosts: n.hosts}
		return []caisson.Option{caisson.WithNetwork(n.pasta)}, n.pasta.Validate()
	case kind == "cni":
		return n.cni(ctx, name)
	case ofNetns(kind):
		return n.joins(ctx, kind, name)
	}
	return nil, errors.New("-net is none, host, pasta, netns:NAME, " + kindsUsage)
}

func (n *network) joins(ctx context.Context, kind, name string) ([]caisson.Option, error) {
	made, err := n.made(kind, name)
	if err != nil {
		return nil, err
	}
	n.endpoint.Network = made
	n.joined = &netns.Networks{Endpoints: []netns.Endpoint{n.endpoint}, DNS: n.dns, Hosts: n.hosts}
	if err := n.joined.Validate(); err != nil {
		return nil, err
	}
	// What a killed program left could hold the port that is wanted now.
	if _, err := caisson.Recover(ctx, netns.Owner()); err != nil {
		fmt.Fprintln(os.Stderr, "!", err)
	}
	return []caisson.Option{caisson.WithNetwork(n.joined)}, nil
}

// report tells what has become of the wish.
func (n *network) report(w io.Writer) {
	if n.pasta != nil {
		reportPorts(w, n.pasta.Published())
	}
	if n.byPlugins != nil {
		fmt.Fprintf(w, "  eth0 is on network %s with %v\n", n.byPlugins.Name(), n.byPlugins.Last().Addresses())
	}
	if n.joined == nil {
		return
	}
	for _, s := range n.joined.Status() {
		fmt.Fprintf(w, "  %s is on network %s with %v\n", s.Interface, s.Network, s.Addresses)
		reportPorts(w, s.Ports)
	}
}

func reportPorts(w io.Writer, l []netns.Port) {
	for _, p := range l {
		fmt.Fprintf(w, "  port %d/%s of the host leads to %d\n", p.Host, p.Protocol, p.Container)
	}
}
