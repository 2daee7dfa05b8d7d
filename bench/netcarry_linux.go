package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/caisson-go/caisson/netns"
)

// Names of rows that others look at.
const (
	rowNeighbour         = "container to container"
	rowFromHost          = "host to container, direct"
	rowPublishedRate     = "host to its published port"
	rowRequests          = "requests, container to container"
	rowRequestsHost      = "requests, host to container, direct"
	rowPublishedRequests = "requests, host to its published port"
	rowBeyond            = "beyond the host to its published port"
	rowRequestsBeyond    = "requests, beyond the host to its published port"
	rowLoopback          = "host to its published port by 127.0.0.1"
	rowRequestsLoopback  = "requests, host to its published port by 127.0.0.1"
	rowNeighbour6        = "container to container, IPv6"
)

// carriedRows are those that peers are compared in.
var carriedRows = []string{rowNeighbour, rowFromHost, rowPublishedRate, rowBeyond, rowNeighbour6, rowRequests, rowRequestsHost, rowPublishedRequests, rowRequestsBeyond}

// rowDirect is what a row goes a detour of.
var rowDirect = map[string]string{rowPublishedRate: rowFromHost, rowPublishedRequests: rowRequestsHost}

// stand is a server and who asks it.
type stand struct {
	name        string
	server      *place
	client      *place
	host, world *netns.Namespace
	outer       netip.Addr
	noPort      bool
	undo        []func() error
}

func (s *stand) close() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		_ = s.undo[i]()
	}
}

// serving starts servers at the ports 80 and 5201 of a namespace.
func serving(ctx context.Context, s *stand) func(*netns.Namespace) error {
	return func(ns *netns.Namespace) error {
		l, err := ns.Listen(ctx, "tcp", ":80")
		if err != nil {
			return err
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		defer f.Close()
		self, err := os.Executable()
		if err != nil {
			return err
		}
		web, iperf := onProcessor(1, self, webProgram), onProcessor(1, "iperf3", "-s")
		web.ExtraFiles = []*os.File{f}
		for _, cmd := range []*exec.Cmd{web, iperf} {
			if err := ns.Do(cmd.Start); err != nil {
				return err
			}
			s.undo = append(s.undo, func() error { return errors.Join(cmd.Process.Kill(), ignore(cmd.Wait())) })
		}
		return answers(ctx, ns, netip.MustParseAddrPort("127.0.0.1:5201"))
	}
}

func ignore(error) error { return nil }

// webProgram is this program as a web server at the listening socket that it is given.
const webProgram = "serve-web"

func serveWeb() error {
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello\n")) }))
}

// onProcessor makes a command that stays on a processor, if there is a second one: who serves on one, who asks on another. Where the scheduler
// puts them differs by a fifth from one sample to the next.
func onProcessor(n int, name string, args ...string) *exec.Cmd {
	if runtime.NumCPU() > 1 {
		name, args = "taskset", append([]string{"-c", strconv.Itoa(n), name}, args...)
	}
	return exec.Command(name, args...)
}

// carried measures throughput and requests, in turns.
func carried(ctx context.Context, engines []*netEngine, f *figures) error {
	var all []*stand
	defer func() {
		for _, s := range all {
			s.close()
		}
	}()
	for _, e := range engines {
		if e.pooled { // the same devices
			continue
		}
		s := &stand{name: e.name, host: e.host, world: e.world, outer: e.outer()[0]}
		all = append(all, s)
		var err error
		if s.server, _, err = e.attach(ctx, true, serving(ctx, s)); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		s.undo = append(s.undo, s.server.detach)
		if s.client, _, err = e.attach(ctx, false, func(*netns.Namespace) error { return nil }); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		s.undo = append(s.undo, s.client.detach)
	}
	plain, err := plainVeth(ctx)
	all = append(all, plain)
	if err != nil {
		return err
	}
	for range *netTurns {
		for _, ways := range carryWays { // one after the other, and who is first by chance: a machine is faster at one time than at another
			rand.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
			for _, s := range all {
				for _, i := range rand.Perm(len(ways)) {
					if err := s.carry(ctx, ways[i], f); err != nil {
						return fmt.Errorf("%s: %w", s.name, err)
					}
				}
			}
		}
	}
	return nil
}

// plainVeth is a pair of devices between two namespaces, without bridge, rules and host.
func plainVeth(ctx context.Context) (s *stand, err error) {
	s = &stand{name: "plain veth", noPort: true}
	server, err := netns.New()
	if err != nil {
		return s, err
	}
	s.undo = append(s.undo, server.Close)
	client, err := netns.New()
	if err != nil {
		return s, err
	}
	s.undo = append(s.undo, client.Close)
	own, err := netlink.ParseAddr("10.77.0.2/16")
	if err != nil {
		return s, err
	}
	other, err := netlink.ParseAddr("10.77.0.3/16")
	if err != nil {
		return s, err
	}
	s.server = &place{ns: server, own: []netip.Addr{netip.MustParseAddr("10.77.0.2")}}
	s.client = &place{ns: client, own: []netip.Addr{netip.MustParseAddr("10.77.0.3")}}
	up := func(a *netlink.Addr) error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
	}
	err = server.Do(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", TxQLen: -1}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(client.File().Fd()))}
		return errors.Join(netlink.LinkAdd(v), up(own))
	})
	if err = errors.Join(err, client.Do(func() error { return up(other) })); err != nil {
		return s, err
	}
	return s, serving(ctx, s)(server)
}

// carryWay is one way to a server.
type carryWay struct {
	rate, requests string
	from           *netns.Namespace
	to             netip.Addr
	published      bool
}

// carryWays are the numbers of those of ways that are measured one right after the other: what a detour costs is seen beside the direct way.
var carryWays = [][]int{{0}, {1, 2}, {3}, {4}, {5}}

func (s *stand) ways() []carryWay {
	own := s.server.own[0]
	ways := []carryWay{{rowNeighbour, rowRequests, s.client.ns, own, false}}
	if !s.noPort {
		ways = append(ways, carryWay{rowFromHost, rowRequestsHost, s.host, own, false},
			carryWay{rowPublishedRate, rowPublishedRequests, s.host, s.server.host[0], true},
			carryWay{rowBeyond, rowRequestsBeyond, s.world, s.outer, true},
			carryWay{rowLoopback, rowRequestsLoopback, s.host, netip.MustParseAddr("127.0.0.1"), true},
			carryWay{rowNeighbour6, "", s.client.ns, s.server.own[1], false})
	}
	return ways
}

// carry takes a sample of the ith way, if there is one.
func (s *stand) carry(ctx context.Context, i int, f *figures) error {
	for _, w := range s.ways()[min(i, len(s.ways())):min(i+1, len(s.ways()))] {
		web, iperf := uint16(80), uint16(5201)
		if w.published {
			web, iperf = s.server.web, s.server.iperf
		}
		if w.to.IsLoopback() && !reachable(ctx, w.from, netip.AddrPortFrom(w.to, web)) {
			continue // not every way has it
		}
		x, err := throughputTo(w.from, netip.AddrPortFrom(w.to, iperf))
		if err != nil {
			return fmt.Errorf("%s: %w", w.rate, err)
		}
		f.row(w.rate, "Gbit/s", true).add(s.name, x)
		if w.requests == "" {
			continue
		}
		x, err = requestsTo(w.from, netip.AddrPortFrom(w.to, web))
		if err != nil {
			return fmt.Errorf("%s: %w", w.requests, err)
		}
		f.row(w.requests, "1/s", true).add(s.name, x)
	}
	return nil
}

func reachable(ctx context.Context, from *netns.Namespace, to netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // where it is sent on, but nothing comes back
	defer cancel()
	c, err := from.Dial(ctx, "tcp", to.String())
	if err == nil {
		c.Close()
	}
	return err == nil
}

func runIn(from *netns.Namespace, name string, args ...string) (out []byte, err error) {
	err = from.Do(func() (err error) {
		out, err = onProcessor(0, name, args...).Output()
		return err
	})
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return out, err
}

// throughputTo is what iperf3 carries in a second, in Gbit/s.
func throughputTo(from *netns.Namespace, to netip.AddrPort) (float64, error) {
	out, err := runIn(from, "iperf3", iperfArgs(to)...)
	if err != nil {
		return 0, err
	}
	return iperfRate(out)
}

func iperfArgs(to netip.AddrPort) []string {
	return []string{"-c", to.Addr().String(), "-p", strconv.Itoa(int(to.Port())), "-t", "1", "-J"}
}

func iperfRate(out []byte) (float64, error) {
	var r struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	err := json.Unmarshal(out, &r)
	return r.End.Received.Bits / 1e9, err
}

var perSecond = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)

// requestsTo is how many requests a second wrk has answered, over 16 connections.
func requestsTo(from *netns.Namespace, to netip.AddrPort) (float64, error) {
	out, err := runIn(from, "wrk", wrkArgs(to)...)
	if err != nil {
		return 0, err
	}
	return wrkRate(out)
}

func wrkArgs(to netip.AddrPort) []string {
	return []string{"-t", "1", "-c", "16", "-d", "1s", "http://" + to.String() + "/"}
}

func wrkRate(out []byte) (float64, error) {
	m := perSecond.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk: %s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
