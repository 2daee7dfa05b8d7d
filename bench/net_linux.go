package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caisson-go/caisson/netns"
)

var (
	netMany  = flag.Int("endpoints", 999, "net: how many endpoints are on the network already when the last is attached; 0 leaves it out")
	netParts = flag.String("parts", "attach,carry,names,many,memory,pasta", "net: what is measured")
	netTurns = flag.Int("turns", 3, "net: times that each throughput and rate is measured, a second each")
)

// networked is a way to connect network namespaces to a bridge in a namespace that plays the host.
type networked interface {
	// attach connects the kth namespace; ports 80 and 5201 of it are published if that is asked for. A nil ns: the way has its own.
	attach(ctx context.Context, ns *netns.Namespace, k int, publish bool) (*place, error)
}

// place is where a namespace has come to, and how it is reached.
type place struct {
	ns     *netns.Namespace
	own    []netip.Addr // IPv4, and IPv6
	host   []netip.Addr // of the bridge
	web    uint16       // the host's port for 80
	iperf  uint16       // for 5201
	detach func() error
}

// netEngine is a networked in a host of its own, with the world beyond it.
type netEngine struct {
	name, about string
	lan         networked
	pooled      bool
	carries     bool // is compared in what it carries only: what else it does is making containers
	host, world *netns.Namespace
	wan         *netns.Connection
	dir         string
	made        int // namespaces, for their numbers
	undo        []func() error
}

// nets measures our bridge beside others.
func nets(w *workspace) error {
	ctx := context.Background()
	out := newFigures()
	engines, err := netEngines(w)
	defer func() {
		for _, e := range engines {
			e.close()
		}
	}()
	if err != nil {
		return err
	}
	steps := map[string]func(context.Context, []*netEngine, *figures) error{"attach": attachments, "carry": carried, "names": namesAsked, "many": manyAttached, "memory": endpointMemory, "pasta": w.byPasta}
	for _, part := range strings.Split(*netParts, ",") {
		if steps[part] == nil {
			return fmt.Errorf("-parts: %q is none of attach, carry, names, many, memory and pasta", part)
		}
		in := engines
		if part != "carry" {
			in = slices.DeleteFunc(slices.Clone(engines), func(e *netEngine) bool { return e.carries })
		}
		if err := steps[part](ctx, in, out); err != nil {
			return err
		}
	}
	out.goals = netGoals
	return w.keepFigures("net", engines, out)
}

// netEngines makes those that this machine has, ours first.
func netEngines(w *workspace) (list []*netEngine, err error) {
	add := func(name, about string, lan func(*netEngine) (networked, error)) error {
		if name != "caisson" && *only != "" && !slices.Contains(strings.Split(*only, ","), name) {
			return nil
		}
		e := &netEngine{name: name, about: about, pooled: name == "caisson (pool)", carries: name == "docker"}
		list = append(list, e)
		if err := e.begin(w); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if e.lan, err = lan(e); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if err := add("caisson", "netns.Bridge, Networks.Connect in this process", newOwn); err != nil {
		return list, err
	}
	if err := add("caisson (pool)", "netns.Pool: the namespace included", newPooled); err != nil {
		return list, err
	}
	if ip, nft := tool("IP", "ip"), tool("NFT", "nft"); ip != "" && nft != "" {
		if err := add("ip + nft", version0(ip, "-V")+", "+version(nft)+": two ip -batch and one nft -f for each, no leases", newIproute(ip, nft)); err != nil {
			return list, err
		}
	}
	if dir := cniPlugins(); dir != "" {
		if err := add("cni", "plugins bridge, host-local and portmap of "+dir+" (as podman's backend cni and containerd)", newCNI(dir)); err != nil {
			return list, err
		}
	}
	if program := helperProgram("NETAVARK", "netavark"); program != "" {
		if err := add("netavark", version(program)+" (podman's backend), addresses given to it", newNetavark(program, "")); err != nil {
			return list, err
		}
	}
	if client, daemon := tool("DOCKER", "docker"), tool("DOCKERD", "dockerd"); client != "" && daemon != "" && strings.Contains(*netParts, "carry") {
		if err := add("docker", version(daemon)+", network of its driver bridge", newDocker(w, client, daemon)); err != nil {
			return list, err
		}
	}
	return list, nil
}

func version0(program, arg string) string {
	out, _ := exec.Command(program, arg).Output()
	return string(out[:max(0, len(out)-1)])
}

// helperProgram finds a program that podman keeps out of PATH.
func helperProgram(env, name string) string {
	if p := tool(env, name); p != "" {
		return p
	}
	for _, dir := range []string{"/usr/lib/podman/", "/usr/libexec/podman/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	return ""
}

type unrecorded struct{}

func (unrecorded) Add(string, int, []byte) (uint64, error) { return 1, nil }
func (unrecorded) Done(uint64) error                       { return nil }

// begin makes the host and the world.
func (e *netEngine) begin(w *workspace) (err error) {
	if e.dir, err = os.MkdirTemp(w.dir, "net-"); err != nil {
		return err
	}
	if e.host, err = netns.New(); err != nil {
		return err
	}
	if e.world, err = netns.New(); err != nil {
		return err
	}
	wan, err := netns.NewBridge(netns.BridgeConfig{Name: "wan", Host: e.world, HostAccess: true, NoNAT: true, StateDir: filepath.Join(e.dir, "wan"), Journal: unrecorded{},
		Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:c5::/64")}})
	if err != nil {
		return err
	}
	e.wan, err = (&netns.Networks{Endpoints: []netns.Endpoint{{Network: wan, Interface: "wan0"}}}).Connect(context.Background(), e.host, "")
	return err
}

func (e *netEngine) close() {
	for i := len(e.undo) - 1; i >= 0; i-- {
		if err := e.undo[i](); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", e.name, err)
		}
	}
	if e.wan != nil {
		_ = e.wan.Detach(context.Background())
	}
	for _, ns := range []*netns.Namespace{e.host, e.world} {
		if ns != nil {
			_ = ns.Close()
		}
	}
}

// outer are the host's addresses as seen from the world.
func (e *netEngine) outer() (out []netip.Addr) {
	for _, p := range e.wan.Status()[0].Addresses {
		out = append(out, p.Addr())
	}
	return out
}

// attach attaches a new namespace, in which before is called first.
func (e *netEngine) attach(ctx context.Context, publish bool, before func(*netns.Namespace) error) (p *place, took time.Duration, err error) {
	e.made++
	if e.pooled || e.carries {
		began := time.Now()
		if p, err = e.lan.attach(ctx, nil, e.made, publish); err != nil {
			return nil, 0, err
		}
		took = time.Since(began)
		return p, took, before(p.ns)
	}
	ns, err := netns.New()
	if err != nil {
		return nil, 0, err
	}
	if err := before(ns); err != nil {
		return nil, 0, errors.Join(err, ns.Close())
	}
	began := time.Now()
	p, err = e.lan.attach(ctx, ns, e.made, publish)
	took = time.Since(began)
	if err != nil {
		return nil, 0, errors.Join(err, ns.Close())
	}
	p.ns = ns
	undo := p.detach
	p.detach = func() error { return errors.Join(undo(), ns.Close()) }
	return p, took, nil
}

// answers waits until somebody listens.
func answers(ctx context.Context, from *netns.Namespace, to netip.AddrPort) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		c, err := from.Dial(one, "tcp", to.String())
		cancel()
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// accepting listens at port 80 and ends each connection.
func accepting(ctx context.Context) (before func(*netns.Namespace) error, done func()) {
	var l net.Listener
	return func(ns *netns.Namespace) (err error) {
			if l, err = ns.Listen(ctx, "tcp", ":80"); err != nil {
				return err
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Close()
				}
			}()
			return nil
		}, func() {
			if l != nil {
				l.Close()
			}
		}
}
