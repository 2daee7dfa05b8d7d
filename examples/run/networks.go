package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/netns/cni"
)

// kinds are the names of networks on a device of the host, as -net has them.
var kinds = map[string]netns.LANMode{"macvlan": netns.MacvlanBridge, "macvlan-private": netns.MacvlanPrivate, "macvlan-vepa": netns.MacvlanVEPA,
	"macvlan-passthru": netns.MacvlanPassthru, "ipvlan": netns.IpvlanL2, "ipvlan-l3": netns.IpvlanL3, "ipvlan-l3s": netns.IpvlanL3S, "vlan": netns.VLANDevice}

const kindsUsage = `bridge, bridge:NAME, routed (point to point), macvlan:DEVICE, macvlan-private:, macvlan-vepa:, macvlan-passthru:, ipvlan:DEVICE,
ipvlan-l3:, ipvlan-l3s:, vlan:DEVICE.TAG, device:DEVICE (moved in and given back), cni or cni:NAME (from /etc/cni/net.d)`

// ofNetns says that a kind is made by package netns, with what -ip, -mac, -alias, -dns and -add-host say.
func ofNetns(kind string) bool {
	_, lan := kinds[kind]
	return lan || kind == "bridge" || kind == "routed" || kind == "device"
}

// published says that -p goes with a kind.
func published(kind string) bool {
	return kind == "bridge" || kind == "routed" || kind == "pasta" || kind == "cni"
}

func (n *network) moreFlags(f *flag.FlagSet) {
	f.Func("subnet", "`SUBNET` that addresses are taken from, for macvlan and the like, which have none otherwise; may be repeated, for IPv6", func(s string) error {
		p, err := netip.ParsePrefix(s)
		n.subnets = append(n.subnets, p)
		return err
	})
	f.Func("gateway", "`ADDRESS` of the router in the subnet; may be repeated, for IPv6", func(s string) error {
		a, err := netip.ParseAddr(s)
		n.gateways = append(n.gateways, a)
		return err
	})
	f.StringVar(&n.plugins, "cni-path", "", "`DIRECTORIES` of CNI's plugins, with ':' between them")
}

// made makes the network of a kind.
func (n *network) made(kind, name string) (netns.Network, error) {
	if mode, ok := kinds[kind]; ok {
		cfg := netns.LANConfig{Name: "run-" + name, Mode: mode, Parent: name, Subnets: n.subnets, Gateways: n.gateways}
		if mode == netns.VLANDevice {
			var tag string
			var err error
			cfg.Parent, tag, _ = strings.Cut(name, ".")
			if cfg.VLAN, err = strconv.Atoi(tag); err != nil {
				return nil, errors.New("-net vlan:DEVICE.TAG has a number behind the dot")
			}
		}
		return netns.NewLAN(cfg)
	}
	switch kind {
	case "device":
		return netns.NewDevice(netns.DeviceConfig{Device: name})
	case "routed":
		if name == "" {
			name = "run-routed"
		}
		return netns.NewRouted(netns.RoutedConfig{Name: name, Subnets: n.subnets})
	}
	if name == "" {
		name = "run"
	}
	return netns.NewBridge(netns.BridgeConfig{Name: name, Subnets: n.subnets})
}

// cni makes the network of a configuration of CNI.
func (n *network) cni(ctx context.Context, name string) ([]caisson.Option, error) {
	list, err := cni.ReadDir("/etc/cni/net.d", name)
	if err != nil {
		return nil, err
	}
	o := cni.Options{Ports: n.endpoint.Ports, DNS: n.dns, Hosts: n.hosts}
	if n.plugins != "" {
		o.Path = strings.Split(n.plugins, ":")
	}
	made, err := cni.New(list, o)
	if err != nil {
		return nil, err
	}
	if _, err := caisson.Recover(ctx, netns.Owner(), cni.Owner()); err != nil {
		fmt.Fprintln(os.Stderr, "!", err)
	}
	n.byPlugins = made
	return []caisson.Option{caisson.WithNetwork(made)}, nil
}

// byOwner says that a network is something of this program's, which a monitor has to make itself.
func (n *network) byOwner() bool {
	kind, _, _ := strings.Cut(n.kind, ":")
	return ofNetns(kind) || kind == "pasta" || kind == "cni"
}

// arguments are the flags that say the same.
func (n *network) arguments() []string {
	args := []string{"-net", n.kind}
	add := func(flag string, value fmt.Stringer) { args = append(args, flag, value.String()) }
	for _, p := range n.endpoint.Ports {
		add("-p", p)
	}
	for _, a := range n.endpoint.Addresses {
		add("-ip", a)
	}
	if len(n.endpoint.MAC) > 0 {
		add("-mac", n.endpoint.MAC)
	}
	for _, a := range n.endpoint.Aliases {
		args = append(args, "-alias", a)
	}
	for _, s := range n.dns.Servers {
		add("-dns", s.Addr())
	}
	for _, h := range n.hosts {
		args = append(args, "-add-host", h.Names[0]+":"+h.Addr.String())
	}
	for _, s := range n.subnets {
		add("-subnet", s)
	}
	for _, g := range n.gateways {
		add("-gateway", g)
	}
	if n.plugins != "" {
		args = append(args, "-cni-path", n.plugins)
	}
	return args
}
