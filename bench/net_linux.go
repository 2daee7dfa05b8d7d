package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caisson-go/caisson/netns"
)

// networked is one way to connect network namespaces to a bridge in a namespace that plays the host.
type networked interface {
	// attach connects a namespace and publishes its port 80 (and 5201) on the host's 8080 (and 15201); addr is its own address, host
	// that of the bridge.
	attach(ctx context.Context, ns *netns.Namespace, publish bool) (addr, host netip.Addr, detach func() error, err error)
}

// netCell is what is measured.
type netCell struct {
	Attach                                 summary // microseconds until the first connection by the published port
	Neighbour, FromHost, HostPort, Publish float64 // Gbit/s: container to container, host to container, host to its published port, from beyond the host to that
	Requests, RequestsHost, RequestsByWay  float64 // a second: container to container, host to container, by the published port
}

// nets measures our bridge beside CNI's plugins bridge and portmap, which podman uses with the backend cni.
func nets(w *workspace) error {
	ctx := context.Background()
	out := map[string]*netCell{}
	names := []string{"caisson", "cni"}
	made := map[string]*bench1{}
	for _, name := range names {
		b, err := newBench(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer b.close()
		made[name], out[name] = b, &netCell{}
	}
	times := map[string][]float64{}
	for i := range *rounds + 3 {
		for _, name := range names {
			t, err := made[name].untilConnected(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if i >= 3 { // warm
				times[name] = append(times[name], t)
			}
		}
	}
	const turns = 3
	for range turns {
		for _, name := range names {
			if err := made[name].carry(ctx, out[name], turns); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	var text strings.Builder
	r := machine()
	fmt.Fprintf(&text, "Linux %s, %d CPUs, %s\n\n| | caisson | CNI bridge + portmap |\n|---|---|---|\n", r.Kernel, r.CPUs, r.Go)
	for _, name := range names {
		out[name].Attach = summarize(times[name])
	}
	a, b := out["caisson"], out["cni"]
	fmt.Fprintf(&text, "| attach until the first connection by a published port, µs, median / p90 / fastest | %.0f / %.0f / %.0f | %.0f / %.0f / %.0f |\n",
		a.Attach.Median, a.Attach.P90, a.Attach.Min, b.Attach.Median, b.Attach.P90, b.Attach.Min)
	row := func(what string, f func(*netCell) float64, format string) {
		fmt.Fprintf(&text, "| %s | "+format+" | "+format+" |\n", what, f(a), f(b))
	}
	row("container to container, Gbit/s", func(c *netCell) float64 { return c.Neighbour }, "%.1f")
	row("host to container, Gbit/s", func(c *netCell) float64 { return c.FromHost }, "%.1f")
	row("from beyond the host to its published port, Gbit/s", func(c *netCell) float64 { return c.Publish }, "%.1f")
	row("host to its own published port, Gbit/s", func(c *netCell) float64 { return c.HostPort }, "%.1f")
	row("container to container, requests/s", func(c *netCell) float64 { return c.Requests }, "%.0f")
	row("host to container, requests/s", func(c *netCell) float64 { return c.RequestsHost }, "%.0f")
	row("from beyond the host to its published port, requests/s", func(c *netCell) float64 { return c.RequestsByWay }, "%.0f")
	fmt.Print(text.String())
	return w.keep("net", text.String(), out)
}

// bench1 is a host of its own, with the world beyond it.
type bench1 struct {
	host, world *netns.Namespace
	lan         networked
	wan         *netns.Connection
	dir         string
}

type unrecorded struct{}

func (unrecorded) Add(string, int, []byte) (uint64, error) { return 1, nil }
func (unrecorded) Done(uint64) error                       { return nil }

func newBench(name string) (*bench1, error) {
	b := &bench1{}
	var err error
	if b.dir, err = os.MkdirTemp("", "caisson-bench-net-"); err != nil {
		return nil, err
	}
	if b.host, err = netns.New(); err != nil {
		return nil, err
	}
	if b.world, err = netns.New(); err != nil {
		return nil, err
	}
	wan, err := netns.NewBridge(netns.BridgeConfig{Name: "wan", Host: b.world, HostAccess: true, NoNAT: true, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, StateDir: filepath.Join(b.dir, "wan"), Journal: unrecorded{}})
	if err != nil {
		return nil, err
	}
	if b.wan, err = (&netns.Networks{Endpoints: []netns.Endpoint{{Network: wan}}}).Connect(context.Background(), b.host, ""); err != nil {
		return nil, err
	}
	if name == "cni" {
		b.lan = &cniNet{b.host, b.dir}
		return b, nil
	}
	lan, err := netns.NewBridge(netns.BridgeConfig{Name: "lan", Host: b.host, Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}, StateDir: filepath.Join(b.dir, "lan"), Journal: unrecorded{}})
	b.lan = &ownNet{lan}
	return b, err
}

func (b *bench1) close() {
	_ = b.wan.Detach(context.Background())
	_ = b.host.Close()
	_ = b.world.Close()
	_ = os.RemoveAll(b.dir)
}

type ownNet struct{ b *netns.Bridge }

func (n *ownNet) attach(ctx context.Context, ns *netns.Namespace, publish bool) (netip.Addr, netip.Addr, func() error, error) {
	e := netns.Endpoint{Network: n.b}
	if publish {
		e.Ports = []netns.Port{{Container: 80, Host: 8080}, {Container: 5201, Host: 15201}}
	}
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{e}}).Connect(ctx, ns, "")
	if err != nil {
		return netip.Addr{}, netip.Addr{}, nil, err
	}
	p := c.Status()[0].Addresses[0]
	return p.Addr(), p.Masked().Addr().Next(), func() error { return c.Detach(ctx) }, nil
}

// cniNet runs the plugins of Debian's package containernetworking-plugins, in the host's namespace.
type cniNet struct {
	host *netns.Namespace
	dir  string
}

const cniDir = "/usr/lib/cni"

func (n *cniNet) run(command, plugin, id, path string, config map[string]any) (out map[string]any, err error) {
	in, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	var stdout bytes.Buffer
	cmd := exec.Command(filepath.Join(cniDir, plugin))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_NETNS="+path, "CNI_IFNAME=eth0", "CNI_PATH="+cniDir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, os.Stderr
	if err := n.host.Do(cmd.Run); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", plugin, command, err, stdout.String())
	}
	if stdout.Len() > 0 {
		err = json.Unmarshal(stdout.Bytes(), &out)
	}
	return out, err
}

func (n *cniNet) attach(ctx context.Context, ns *netns.Namespace, publish bool) (addr, host netip.Addr, detach func() error, err error) {
	id := strconv.FormatInt(time.Now().UnixNano(), 36)
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File().Fd())
	bridge := map[string]any{"cniVersion": "0.4.0", "name": "bench", "type": "bridge", "bridge": "cni-lan", "isGateway": true, "ipMasq": true, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": n.dir, "routes": []any{map[string]any{"dst": "0.0.0.0/0"}}, "ranges": []any{[]any{map[string]any{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}}}}}
	result, err := n.run("ADD", "bridge", id, path, bridge)
	if err != nil {
		return addr, host, nil, err
	}
	text := result["ips"].([]any)[0].(map[string]any)["address"].(string)
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return addr, host, nil, err
	}
	ports := map[string]any{"cniVersion": "0.4.0", "name": "bench", "type": "portmap", "capabilities": map[string]any{"portMappings": true}, "prevResult": result,
		"runtimeConfig": map[string]any{"portMappings": []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, map[string]any{"hostPort": 15201, "containerPort": 5201, "protocol": "tcp"}}}}
	if publish {
		if _, err := n.run("ADD", "portmap", id, path, ports); err != nil {
			return addr, host, nil, err
		}
	}
	return p.Addr(), netip.MustParseAddr("10.88.0.1"), func() error {
		var faults []error
		if publish {
			_, err := n.run("DEL", "portmap", id, path, ports)
			faults = append(faults, err)
		}
		_, err := n.run("DEL", "bridge", id, path, bridge)
		return errors.Join(append(faults, err)...)
	}, nil
}

// untilConnected measures an attachment.
func (b *bench1) untilConnected(ctx context.Context) (float64, error) {
	ns, err := netns.New()
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	l, err := ns.Listen(ctx, "tcp4", ":80")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	began := time.Now()
	_, host, detach, err := b.lan.attach(ctx, ns, true)
	if err != nil {
		return 0, err
	}
	c, err := b.host.Dial(ctx, "tcp", netip.AddrPortFrom(host, 8080).String())
	took := time.Since(began)
	if err == nil {
		c.Close()
	}
	return microseconds(took), errors.Join(err, detach())
}

// carry measures what is carried, and adds its share of the mean.
func (b *bench1) carry(ctx context.Context, out *netCell, turns float64) (err error) {
	server, err := netns.New()
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := netns.New()
	if err != nil {
		return err
	}
	defer client.Close()
	addr, gateway, detach, err := b.lan.attach(ctx, server, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, detach()) }()
	_, _, detachClient, err := b.lan.attach(ctx, client, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, detachClient()) }()
	outer := b.wan.Status()[0].Addresses[0].Addr()
	l, err := server.Listen(ctx, "tcp4", ":80")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello\n")) })}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	iperf := exec.Command("iperf3", "-s")
	if err := server.Do(iperf.Start); err != nil {
		return err
	}
	defer func() { _ = iperf.Process.Kill(); _ = iperf.Wait() }()
	if err := answers(ctx, client, netip.AddrPortFrom(addr, 5201)); err != nil {
		return err
	}
	for _, m := range []struct {
		from *netns.Namespace
		to   netip.AddrPort
		into *float64
	}{
		{client, netip.AddrPortFrom(addr, 5201), &out.Neighbour}, {b.host, netip.AddrPortFrom(addr, 5201), &out.FromHost}, {b.host, netip.AddrPortFrom(gateway, 15201), &out.HostPort}, {b.world, netip.AddrPortFrom(outer, 15201), &out.Publish},
	} {
		x, err := throughputTo(m.from, m.to)
		if err != nil {
			return err
		}
		*m.into += x / turns
	}
	for _, m := range []struct {
		from *netns.Namespace
		to   netip.AddrPort
		into *float64
	}{
		{client, netip.AddrPortFrom(addr, 80), &out.Requests}, {b.host, netip.AddrPortFrom(addr, 80), &out.RequestsHost}, {b.world, netip.AddrPortFrom(outer, 8080), &out.RequestsByWay},
	} {
		x, err := requestsTo(m.from, m.to)
		if err != nil {
			return err
		}
		*m.into += x / turns
	}
	return nil
}

// answers waits until somebody listens.
func answers(ctx context.Context, from *netns.Namespace, to netip.AddrPort) error {
	var err error
	var c net.Conn
	for range 100 {
		if c, err = from.Dial(ctx, "tcp", to.String()); err == nil {
			return c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func runIn(from *netns.Namespace, name string, args ...string) (out []byte, err error) {
	err = from.Do(func() (err error) {
		out, err = exec.Command(name, args...).Output()
		return err
	})
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return out, err
}

// throughputTo is what iperf3 carries in two seconds, in Gbit/s.
func throughputTo(from *netns.Namespace, to netip.AddrPort) (float64, error) {
	out, err := runIn(from, "iperf3", "-c", to.Addr().String(), "-p", strconv.Itoa(int(to.Port())), "-t", "2", "-J")
	if err != nil {
		return 0, err
	}
	var r struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	err = json.Unmarshal(out, &r)
	return r.End.Received.Bits / 1e9, err
}

var perSecond = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)

// requestsTo is how many requests a second wrk has answered, over 16 connections.
func requestsTo(from *netns.Namespace, to netip.AddrPort) (float64, error) {
	out, err := runIn(from, "wrk", "-t", "1", "-c", "16", "-d", "2s", "http://"+to.String()+"/")
	if err != nil {
		return 0, err
	}
	m := perSecond.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk: %s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
