package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caisson-go/caisson/netns"
)

// Every way has the same subnets, in a host of its own.
var (
	lanSubnets = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}
	lanHosts   = []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}
)

// The host's ports of those ways whose caller chooses them.
const webPort, iperfPort = 8080, 15201

// numbered are the kth addresses.
func numbered(k int) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 77, byte((k + 1) >> 8), byte(k + 1)}),
		netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 14: byte((k + 1) >> 8), 15: byte(k + 1)})}
}

// ownNet is package netns.
type ownNet struct{ lan *netns.Bridge }

func ownLAN(e *netEngine) (*netns.Bridge, error) {
	return netns.NewBridge(netns.BridgeConfig{Name: "lan", Host: e.host, Subnets: lanSubnets, StateDir: filepath.Join(e.dir, "lan"), Journal: unrecorded{}})
}

func newOwn(e *netEngine) (networked, error) {
	lan, err := ownLAN(e)
	return &ownNet{lan}, err
}

func (n *ownNet) attach(ctx context.Context, ns *netns.Namespace, _ int, publish bool) (*place, error) {
	e := netns.Endpoint{Network: n.lan}
	if publish {
		e.Ports = []netns.Port{{Container: 80, Host: webPort}, {Container: 5201, Host: iperfPort}}
	}
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{e}}).Connect(ctx, ns, "")
	if err != nil {
		return nil, err
	}
	return &place{own: addressesOf(c.Status()[0]), host: lanHosts, web: webPort, iperf: iperfPort, detach: func() error { return c.Detach(ctx) }}, nil
}

func addressesOf(s netns.Status) (out []netip.Addr) {
	for _, p := range s.Addresses {
		out = append(out, p.Addr())
	}
	return out
}

// pooledNet is a pool of ours.
type pooledNet struct{ pool *netns.Pool }

func newPooled(e *netEngine) (networked, error) {
	lan, err := ownLAN(e)
	if err != nil {
		return nil, err
	}
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: lan, Ports: []netns.Port{{Container: 80}}}}}
	pool, err := netns.NewPool(netns.PoolConfig{Size: 4, Networks: n})
	if err != nil {
		return nil, err
	}
	e.undo = append(e.undo, pool.Close)
	p := &pooledNet{pool}
	return p, p.await()
}

// await waits until the pool is full.
func (n *pooledNet) await() error {
	for range 1000 {
		s := n.pool.Stats()
		if s.LastError != nil {
			return s.LastError
		}
		if s.Ready == 4 {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("the pool does not fill")
}

func (n *pooledNet) attach(ctx context.Context, _ *netns.Namespace, k int, _ bool) (*place, error) {
	l, err := n.pool.Get(ctx, fmt.Sprint("c", k))
	if err != nil {
		return nil, err
	}
	s := l.Status()[0]
	return &place{ns: l.Namespace(), own: addressesOf(s), host: lanHosts, web: s.Ports[0].Host, detach: func() error { return errors.Join(l.Close(), n.await()) }}, nil
}

// iprouteNet is what a shell script would do: the floor of what programs can reach. It knows no leases, and counts.
type iprouteNet struct {
	e       *netEngine
	ip, nft string
}

func newIproute(ip, nft string) func(*netEngine) (networked, error) {
	return func(e *netEngine) (networked, error) {
		n := &iprouteNet{e, ip, nft}
		err := errors.Join(n.run(e.host, n.ip, `link add lan type bridge
addr add 10.77.0.1/16 dev lan
addr add fd77::1/64 dev lan nodad
link set lan up
`, "-batch", "-"), n.run(e.host, n.nft, `table inet lan {
 map port4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
 map port6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
 chain pre { type nat hook prerouting priority dstnat; fib daddr type local dnat ip to meta l4proto . th dport map @port4; fib daddr type local dnat ip6 to meta l4proto . th dport map @port6; }
 chain out { type nat hook output priority -100; fib daddr type local dnat ip to meta l4proto . th dport map @port4; fib daddr type local dnat ip6 to meta l4proto . th dport map @port6; }
 chain post { type nat hook postrouting priority srcnat; ip saddr 10.77.0.0/16 oifname != "lan" masquerade; ip6 saddr fd77::/64 oifname != "lan" masquerade; }
 chain through { type filter hook forward priority filter; ct state established,related accept; oifname "lan" ct status dnat accept; oifname "lan" iifname != "lan" drop; }
}
`, "-f", "-"))
		if err != nil {
			return nil, err
		}
		return n, e.host.Do(forwardBoth)
	}
}

// forwardBoth has the calling thread's namespace forward packets.
func forwardBoth() error {
	return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0), os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
}

func (n *iprouteNet) run(in *netns.Namespace, program, stdin string, args ...string) error {
	return in.Do(func() error {
		cmd := exec.Command(program, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, out)
		}
		return nil
	})
}

func (n *iprouteNet) attach(_ context.Context, ns *netns.Namespace, k int, publish bool) (*place, error) {
	a := numbered(k)
	if err := n.run(n.e.host, n.ip, fmt.Sprintf("link add h%d master lan type veth peer name eth0 netns %s\nlink set h%d up\n", k, pathOf(ns), k), "-batch", "-"); err != nil {
		return nil, err
	}
	err := n.run(ns, n.ip, fmt.Sprintf("link set eth0 up\naddr add %v/16 dev eth0\naddr add %v/64 dev eth0 nodad\nroute add default via 10.77.0.1\nroute add default via fd77::1\n", a[0], a[1]), "-batch", "-")
	if err != nil {
		return nil, err
	}
	elements := func(do string) string {
		var b strings.Builder
		for i, m := range []string{"port4", "port6"} {
			value := func(port int) string {
				if do == "delete" {
					return ""
				}
				return fmt.Sprintf(" : %v . %d", a[i], port)
			}
			fmt.Fprintf(&b, "%s element inet lan %s { tcp . %d%s, tcp . %d%s }\n", do, m, webPort, value(80), iperfPort, value(5201))
		}
		return b.String()
	}
	if publish {
		if err := n.run(n.e.host, n.nft, elements("add"), "-f", "-"); err != nil {
			return nil, err
		}
	}
	return &place{own: a, host: lanHosts, web: webPort, iperf: iperfPort, detach: func() error {
		err := n.run(n.e.host, n.ip, fmt.Sprintf("link del h%d\n", k), "-batch", "-")
		if publish {
			err = errors.Join(err, n.run(n.e.host, n.nft, elements("delete"), "-f", "-"))
		}
		return err
	}}, nil
}

func pathOf(ns *netns.Namespace) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File().Fd())
}

// cniNet runs CNI's plugins in the host's namespace.
type cniNet struct {
	e       *netEngine
	plugins string
}

// cniPlugins finds the directory of CNI's plugins: CNI_PATH, else those of packages.
func cniPlugins() string {
	for _, dir := range []string{os.Getenv("CNI_PATH"), "/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "portmap")); dir != "" && err == nil {
			return dir
		}
	}
	return ""
}

func newCNI(dir string) func(*netEngine) (networked, error) {
	return func(e *netEngine) (networked, error) { return &cniNet{e, dir}, nil }
}

func (n *cniNet) run(command, plugin, id, path string, config map[string]any) (out map[string]any, err error) {
	in, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	var stdout bytes.Buffer
	cmd := exec.Command(filepath.Join(n.plugins, plugin))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_NETNS="+path, "CNI_IFNAME=eth0", "CNI_PATH="+n.plugins)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, os.Stderr
	if err := n.e.host.Do(cmd.Run); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", plugin, command, err, stdout.String())
	}
	if stdout.Len() > 0 {
		err = json.Unmarshal(stdout.Bytes(), &out)
	}
	return out, err
}

func (n *cniNet) attach(_ context.Context, ns *netns.Namespace, k int, publish bool) (*place, error) {
	id, path := fmt.Sprint("bench", k), pathOf(ns)
	ranges, routes := []any{}, []any{}
	for i, s := range lanSubnets {
		ranges = append(ranges, []any{map[string]any{"subnet": s.String(), "gateway": lanHosts[i].String()}})
		routes = append(routes, map[string]any{"dst": []string{"0.0.0.0/0", "::/0"}[i]})
	}
	bridge := map[string]any{"cniVersion": "0.4.0", "name": "bench", "type": "bridge", "bridge": "lan", "isGateway": true, "ipMasq": true, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": n.e.dir, "routes": routes, "ranges": ranges}}
	result, err := n.run("ADD", "bridge", id, path, bridge)
	if err != nil {
		return nil, err
	}
	p := &place{host: lanHosts, web: webPort, iperf: iperfPort}
	for _, a := range result["ips"].([]any) {
		text, _ := a.(map[string]any)["address"].(string)
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		p.own = append(p.own, prefix.Addr())
	}
	ports := map[string]any{"cniVersion": "0.4.0", "name": "bench", "type": "portmap", "capabilities": map[string]any{"portMappings": true}, "prevResult": result,
		"runtimeConfig": map[string]any{"portMappings": []any{map[string]any{"hostPort": webPort, "containerPort": 80, "protocol": "tcp"}, map[string]any{"hostPort": iperfPort, "containerPort": 5201, "protocol": "tcp"}}}}
	if publish {
		if _, err := n.run("ADD", "portmap", id, path, ports); err != nil {
			return nil, err
		}
	}
	p.detach = func() error {
		var faults []error
		if publish {
			_, err := n.run("DEL", "portmap", id, path, ports)
			faults = append(faults, err)
		}
		_, err := n.run("DEL", "bridge", id, path, bridge)
		return errors.Join(append(faults, err)...)
	}
	return p, nil
}

// netavarkNet runs podman's program in the host's namespace.
type netavarkNet struct {
	e                 *netEngine
	program, aardvark string
}

func newNetavark(program, aardvark string) func(*netEngine) (networked, error) {
	return func(e *netEngine) (networked, error) { return &netavarkNet{e, program, aardvark}, nil }
}

func (n *netavarkNet) run(do string, ns *netns.Namespace, config []byte) error {
	args := []string{"--config", n.e.dir}
	if n.aardvark != "" {
		args = append(args, "--aardvark-binary", n.aardvark)
	}
	cmd := exec.Command(n.program, append(args, do, pathOf(ns))...)
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent") // the machine's firewalld is none of this
	cmd.Stdin = bytes.NewReader(config)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := n.e.host.Do(cmd.Run); err != nil {
		return fmt.Errorf("%s %s: %w: %s", n.program, do, err, out.String())
	}
	return nil
}

func (n *netavarkNet) attach(_ context.Context, ns *netns.Namespace, k int, publish bool) (*place, error) {
	const network = "lan"
	a := numbered(k)
	mapping := func(host, container int) any {
		return map[string]any{"host_ip": "", "host_port": host, "container_port": container, "protocol": "tcp", "range": 1}
	}
	var ports []any
	if publish {
		ports = []any{mapping(webPort, 80), mapping(iperfPort, 5201)}
	}
	var subnets []any
	for i, s := range lanSubnets {
		subnets = append(subnets, map[string]any{"subnet": s.String(), "gateway": lanHosts[i].String()})
	}
	config, err := json.Marshal(map[string]any{"container_id": fmt.Sprintf("%064x", k), "container_name": fmt.Sprint("c", k), "port_mappings": ports,
		"networks": map[string]any{network: map[string]any{"static_ips": a, "interface_name": "eth0"}},
		"network_info": map[string]any{network: map[string]any{"name": network, "id": strings.Repeat("ab", 32), "driver": "bridge", "network_interface": "lan", "internal": false,
			"dns_enabled": n.aardvark != "", "ipv6_enabled": true, "ipam_options": map[string]string{"driver": "host-local"}, "subnets": subnets}}})
	if err != nil {
		return nil, err
	}
	if err := n.run("setup", ns, config); err != nil {
		return nil, err
	}
	return &place{own: a, host: lanHosts, web: webPort, iperf: iperfPort, detach: func() error { return n.run("teardown", ns, config) }}, nil
}
