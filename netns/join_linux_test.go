package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/caisson-go/caisson/internal/testutil"
)

// run is one of a container's runs.
func run(t testing.TB, n *Networks, r Request) (ns *Namespace, end func()) {
	t.Helper()
	a, err := n.Prepare(testContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { detach(t, a.(*Connection)) })
	t.Cleanup(end)
	ns = newNS(t)
	if err := a.Attach(testContext(t), Target{Netns: ns.File()}); err != nil {
		t.Fatal(err)
	}
	return ns, end
}

// What a container has joined it has in its next run too, with its addresses and names, until it leaves: by the program's memory, and by a file of a detached container's.
func TestJoin(t *testing.T) {
	for how, request := range map[string]func() Request{
		"memory": func() Request { return Request{ID: "first", Hostname: "host1", Attended: true, Memory: &sync.Map{}} },
		"file": func() Request {
			return Request{ID: "first", Hostname: "host1", Attended: true, Kept: filepath.Join(t.TempDir(), "networks.json")}
		},
	} {
		t.Run(how, func(t *testing.T) {
			testutil.NoLeaks(t)
			nothingLeft(t)
			web, back, other := newBridge(t, BridgeConfig{Name: "web"}), newBridge(t, BridgeConfig{Name: "back"}), newBridge(t, BridgeConfig{Name: "other", Internal: true})
			ctx, r, base := testContext(t), request(), &Networks{Endpoints: []Endpoint{{Network: web}, {Network: back}}, DNS: DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}}}
			second, _ := connect(t, "second", Endpoint{Network: other})
			ns, end := run(t, base, r)
			c, err := (&Networks{Endpoints: []Endpoint{{Network: other, Aliases: []string{"db"}}}}).Join(ctx, ns)
			if err != nil {
				t.Fatal(err)
			}
			was := addresses(c)
			if s := c.Status()[0]; s.Interface != "eth2" || !slices.Equal(s.Names, []string{"host1", "first", "db"}) {
				t.Errorf("%+v", s)
			}
			joined := func(when string, ns *Namespace) {
				t.Helper()
				for _, a := range was {
					echo(t, ns, 80)
					says(t, when, second.Dial, "tcp", a, 80, "")
					break
				}
				l, err := other.Endpoints(ctx)
				if i := slices.IndexFunc(l, func(s Status) bool { return s.Container == "first" }); err != nil || i < 0 || l[i].Addresses[0].Addr() != was[0] || !slices.Contains(l[i].Names, "db") {
					t.Errorf("%s: %+v %v", when, l, err)
				}
				if l, err := resolver(ns, "udp").LookupHost(ctx, "second.other."); len(l) != 2 || err != nil {
					t.Errorf("%s: its neighbour: %v %v", when, l, err)
				}
			}
			joined("first run", ns)
			end()
			if l, err := other.Endpoints(ctx); len(l) != 1 || err != nil {
				t.Errorf("between runs: %v %v", l, err)
			}
			ns, end = run(t, base, r)
			joined("second run", ns)
			end()
			ns, end = run(t, base, r)
			joined("third run", ns)
			if how == "memory" {
				detach(t, c) // what the first run joined
			} else if err := (&Networks{Endpoints: []Endpoint{{Network: other}}}).Leave(ctx, ns); err != nil {
				t.Error(err)
			}
			left := func(when string, ns *Namespace) {
				t.Helper()
				if l, err := other.Endpoints(ctx); len(l) != 1 || err != nil {
					t.Errorf("%s: %v %v", when, l, err)
				}
				if err := (&Networks{Endpoints: []Endpoint{{Network: other}}}).Leave(ctx, ns); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: to leave it again: %v", when, err)
				}
			}
			left("left", ns)
			end()
			ns, end = run(t, base, r)
			left("the run after", ns)
			end()
			if how == "file" {
				if _, err := os.Stat(r.Kept); !os.IsNotExist(err) {
					t.Errorf("the file stays: %v", err)
				}
			}
		})
	}
}

// Between two runs a network may go, others may take the address, and Detach disconnects the container from what its next run would get.
func TestJoinBetweenRuns(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	web, back, other := newBridge(t, BridgeConfig{Name: "web"}), newBridge(t, BridgeConfig{Name: "back"}), newBridge(t, BridgeConfig{Name: "other"})
	ctx, r, base := testContext(t), Request{ID: "first", Memory: &sync.Map{}}, &Networks{Endpoints: []Endpoint{{Network: web}, {Network: back}}, DNS: DNS{Disabled: true}}
	ns, end := run(t, base, r)
	c, err := (&Networks{Endpoints: []Endpoint{{Network: other, Interface: "more"}}}).Join(ctx, ns)
	if err != nil {
		t.Fatal(err)
	}
	was := addresses(c)
	end() // with it the network goes
	now := func() []netip.Prefix {
		t.Helper()
		l, err := other.Endpoints(ctx)
		for _, s := range l {
			if s.Container == "first" {
				return s.Addresses
			}
		}
		t.Errorf("it is not connected: %v %v", l, err)
		return []netip.Prefix{{}}
	}
	_, end = run(t, base, r)
	if l := now(); l[0].Addr() != was[0] {
		t.Errorf("the network was made again: %v, and it was %v", l, was)
	}
	end()
	_, thief := connect(t, "thief", Endpoint{Network: newBridge(t, BridgeConfig{Name: "other", Subnets: []netip.Prefix{c.Status()[0].Addresses[0].Masked(), c.Status()[0].Addresses[1].Masked()}}), Addresses: was[:1]})
	_, end = run(t, base, r)
	if l := now(); l[0].Addr() == was[0] || !l[0].Contains(was[0]) {
		t.Errorf("the address is taken: %v, and it was %v", l, was)
	}
	end()
	detach(t, c)
	_, end = run(t, base, r)
	if l, err := other.Endpoints(ctx); len(l) != 1 || err != nil {
		t.Errorf("disconnected between two runs: %v %v", l, err)
	}
	end()
	detach(t, thief)
}

// half is Join up to where the addresses are reserved.
func half(t testing.TB, n *Networks, ns *Namespace, to joining) *Connection {
	t.Helper()
	var err error
	if to.base, err = n.Endpoints[0].Network.config().base(testContext(t), ns); err != nil {
		t.Fatal(err)
	}
	if n, err = n.freeInterfaces(ns); err != nil {
		t.Fatal(err)
	}
	c := &Connection{nets: n, req: Request{ID: to.base.Container}, bare: true, to: &to}
	if err := n.prepare(testContext(t), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// The run ends, or the container leaves, while Join is at work: all of it is there then, or nothing.
func TestJoinMeanwhile(t *testing.T) {
	for what, attached := range map[string]bool{"reserved": false, "attached": true} {
		for _, ends := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the run ends: %v", what, ends), func(t *testing.T) {
				nothingLeft(t)
				ctx, other := testContext(t), newBridge(t, BridgeConfig{Name: "other"})
				n := &Networks{Endpoints: []Endpoint{{Network: other}}}
				ns, end := run(t, &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}, Request{ID: "first"})
				c := half(t, n, ns, joining{})
				attach := func() {
					if err := c.Attach(ctx, Target{Netns: ns.File()}); err != nil {
						t.Error(err)
					}
				}
				if attached {
					attach()
				}
				if ends {
					end()
				} else if err := n.Leave(ctx, ns); !errors.Is(err, ErrNotFound) {
					t.Errorf("leave what is not joined yet: %v", err)
				}
				if !attached {
					attach()
				}
				if err := c.handOver(ctx); ends != errors.Is(err, ErrNotFound) || !ends && err != nil {
					t.Error("hand over:", err)
				}
				if ends {
					detach(t, c)
				}
				end()
			})
		}
	}
}

// The container is disconnected while its next run begins: who begins it takes away what it has made.
func TestJoinLeftMeanwhile(t *testing.T) {
	nothingLeft(t)
	ctx, r := testContext(t), Request{ID: "first", Memory: &sync.Map{}}
	n, base := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "other"})}}}, &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}
	ns, end := run(t, base, r)
	c, err := n.Join(ctx, ns)
	if err != nil {
		t.Fatal(err)
	}
	end()
	ns, end = run(t, base, Request{ID: "first"})
	again := half(t, n, ns, joining{ids: []string{c.rec.Endpoints[0].ID}, memory: r.Memory})
	detach(t, c)
	if err := again.Attach(ctx, Target{Netns: ns.File()}); err != nil {
		t.Error(err)
	}
	if err := again.handOver(ctx); !errors.Is(err, errLeft) {
		t.Error("hand over:", err)
	}
	detach(t, again)
	end()
}

// A subnet that nobody wished for is another one in a run after others have taken it.
func TestJoinElsewhere(t *testing.T) {
	nothingLeft(t)
	ctx, r := testContext(t), Request{ID: "first", Memory: &sync.Map{}}
	other, base := newBridge(t, BridgeConfig{Name: "other"}), &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}
	ns, end := run(t, base, r)
	c, err := (&Networks{Endpoints: []Endpoint{{Network: other}}}).Join(ctx, ns)
	if err != nil {
		t.Fatal(err)
	}
	end()
	was := c.Status()[0].Addresses[0].Masked()
	_, thief := connect(t, "thief", Endpoint{Network: newBridge(t, BridgeConfig{Name: "thief", Subnets: []netip.Prefix{was}})})
	_, end = run(t, base, r)
	if l, err := other.Endpoints(ctx); err != nil || len(l) != 1 || was.Contains(l[0].Addresses[0].Addr()) {
		t.Errorf("%v is another's: %+v %v", was, l, err)
	}
	end()
	detach(t, thief)
}

// What a file of joined networks says is judged.
func TestJoinKept(t *testing.T) {
	nothingLeft(t)
	base := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}
	connect(t, "stays", base.Endpoints[0]) // so that the bridge and the rules are made once
	entry := func(network string) string { return `[{"id":"x","network":` + network + `,"interface":"eth1"}]` }
	for what, c := range map[string]struct {
		text string
		ok   bool
	}{
		"empty":           {"", true},
		"never written":   {strings.Repeat("\x00", 100), true},
		"none":            {"[]", true},
		"no JSON":         {"{", false},
		"too large":       {"[" + strings.Repeat(" ", maxKeptBytes) + "]", false},
		"too many":        {"[" + strings.Repeat("{},", maxKept) + "{}]", false},
		"a tap":           {entry(`{"name":"t","kind":"tap"}`), false},
		"a device":        {entry(`{"name":"t","kind":"device"}`), false},
		"an overlay":      {entry(`{"name":"t","kind":"overlay","flood":true}`), false},
		"another's peers": {entry(`{"name":"t","kind":"overlay"}`), false},
		"half joined":     {`[{"id":"x","with":"x","network":{"name":"t","kind":"tap"},"interface":"eth1"}]`, true},
		"a mode":          {entry(`{"name":"t","mode":1}`), false},
		"no mode":         {entry(`{"name":"t","kind":"macvlan","parent":"lo"}`), false},
		"a path":          {entry(`{"name":"../t"}`), false},
		"a bridge's name": {entry(`{"name":"t","bridge":"a/b"}`), false},
		"ranges":          {entry(`{"name":"t","ranges":["10.0.0.0/8"],"gateways":["10.0.0.1"]}`), false},
		"a link":          {"", false},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "networks.json")
			err := os.WriteFile(path, []byte(c.text), 0o600)
			if what == "a link" {
				err = errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path))
			}
			if err != nil {
				t.Fatal(err)
			}
			a, err := base.Prepare(testContext(t), Request{ID: "first", Kept: path})
			if err != nil {
				t.Fatal(err)
			}
			err = a.Attach(testContext(t), Target{Netns: newNS(t).File()})
			if c.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), path) {
				t.Error(err)
			}
			detach(t, a.(*Connection))
		})
	}
}

// begunRun is a run of a container that others may join; half of a join of the networks to it is done.
func begunRun(t testing.TB, r Request, to ...Network) (again func() (*Namespace, func()), ns *Namespace, end func(), c *Connection) {
	t.Helper()
	base, n := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}, &Networks{}
	for _, w := range to {
		n.Endpoints = append(n.Endpoints, Endpoint{Network: w})
	}
	again = func() (*Namespace, func()) { return run(t, base, r) }
	ns, end = again()
	c = half(t, n, ns, joining{})
	if err := c.Attach(testContext(t), Target{Netns: ns.File()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range c.services { // of a killed joiner nothing else is left
			s.Close()
		}
	})
	return again, ns, end, c
}

// hasJoined fails unless the container is on the network, by the device in the namespace, or is not.
func hasJoined(t testing.TB, when string, ns *Namespace, b Network, device string, want bool) {
	t.Helper()
	l, err := b.config().listEndpoints(testContext(t))
	is := slices.ContainsFunc(l, func(s Status) bool { return s.Container == "first" })
	there := false
	err = errors.Join(err, ns.Do(func() error {
		_, err := indexOf(device)
		there = err == nil
		return nil
	}))
	if is != want || there != want || err != nil {
		t.Errorf("%s: on %s is %v, its %s is there: %v, want %v: %v", when, b.Name(), is, device, there, want, err)
	}
}

// A joiner is killed after any of the last steps of Join. The container has joined both networks then, in this run and in the next one, or neither: also where the recovery
// comes as late as in the next run, and where the container has left one of them before.
func TestJoinKilledHalfway(t *testing.T) {
	joinKilledHalfway(t, newBridge(t, BridgeConfig{Name: "more"}), "recovered at once", "recovered late", "recovered late, memory", "left one, recovered", "left one, recovered late")
}

// The same with an overlay whose hosts tell each other of their containers by files.
func TestJoinKilledHalfwayOverlay(t *testing.T) {
	needKind(t, kindVXLAN)
	joinKilledHalfway(t, storedOverlay(t), "recovered late")
}

// storedOverlay is one in this namespace, with its store in files.
func storedOverlay(t testing.TB) *Overlay {
	t.Helper()
	_, host, _ := world(t)
	return newOverlay(t, OverlayConfig{Name: "more", Subnets: overlaySubnets, Ranges: rangesOf(0), VNI: 42, Local: host[0], Peers: NewPeerStore(Directory(t.TempDir()), "net/")})
}

func joinKilledHalfway(t *testing.T, more Network, cases ...string) {
	nothingLeft(t)
	ctx, other := testContext(t), newBridge(t, BridgeConfig{Name: "other"})
	connect(t, "stays", Endpoint{Network: other}, Endpoint{Network: more}) // so that bridges and rules are made once
	const steps, done = 5, 3                                               // the file of the container, each endpoint, settled, struck out
	for n := done - 1; n < steps; n++ {
		for _, when := range cases {
			r := Request{ID: "first", Kept: filepath.Join(t.TempDir(), "networks.json")}
			if strings.Contains(when, "memory") {
				r.Kept, r.Memory = "", &sync.Map{}
			}
			t.Run(fmt.Sprintf("after %d, %s", n, when), func(t *testing.T) {
				late, left := strings.Contains(when, "late"), n >= done && strings.Contains(when, "left")
				again, ns, end, c := begunRun(t, r, other, more)
				data, err := c.rec.encode()
				if err != nil {
					t.Fatal(err)
				}
				s, err := openStore(ctx, c.rec.StateDir, c.rec.Host)
				if err != nil {
					t.Fatal(err)
				}
				l, err := c.joinSteps(s)
				if len(l) != steps || err != nil {
					t.Errorf("%d steps: %v", len(l), err)
				}
				for _, step := range l[:n] {
					err = errors.Join(err, step())
				}
				s.close()
				recoverIt := func() { err = errors.Join(err, Owner().Undo(ctx, recordVersion, data), c.strike()) }
				both := func(when string) {
					t.Helper()
					for device, b := range map[string]Network{"eth1": other, "eth2": more} {
						hasJoined(t, when, ns, b, device, n >= done && !(left && b == other))
					}
				}
				if left {
					err = errors.Join(err, (&Networks{Endpoints: []Endpoint{{Network: other}}}).Leave(ctx, ns))
				}
				if !late {
					recoverIt()
					both("recovered")
				}
				end()
				ns, end = again()
				if late {
					recoverIt()
				}
				both("next run")
				end()
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// What a killed joiner left is undone as late as while the next run connects the container again: that run's connection is not the joiner's any more.
func TestJoinRecoveredMeanwhile(t *testing.T) {
	nothingLeft(t)
	ctx, other := testContext(t), newBridge(t, BridgeConfig{Name: "other"})
	again, _, end, c := begunRun(t, Request{ID: "first"}, other)
	data, err := c.rec.encode()
	if err := errors.Join(err, c.handOver(ctx)); err != nil {
		t.Fatal(err)
	}
	end()
	ns, end := again()
	m := &sync.Map{}
	m.Store(keptKey(c.rec.Endpoints[0].ID), keptEndpoint{}) // it has not left
	next := half(t, c.nets, ns, joining{ids: []string{c.rec.Endpoints[0].ID}, memory: m})
	err = next.Attach(ctx, Target{Netns: ns.File()})
	if err := errors.Join(err, Owner().Undo(ctx, recordVersion, data), next.handOver(ctx)); err != nil {
		t.Error(err)
	}
	hasJoined(t, "recovered", ns, other, "eth1", true)
	end()
}

// A program is killed while it connects a container's run again, once it has addresses: the next run has them, or others if those are another's by now, and gives back all.
func TestJoinKilledLeases(t *testing.T) {
	nothingLeft(t)
	ctx, other := testContext(t), newBridge(t, BridgeConfig{Name: "other"})
	connect(t, "stays", Endpoint{Network: other}) // so that the network does
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprintf("another has them: %v", taken), func(t *testing.T) {
			again, _, end, c := begunRun(t, Request{ID: "first", Memory: &sync.Map{}}, other)
			if err := c.handOver(ctx); err != nil {
				t.Fatal(err)
			}
			was, id := addresses(c), c.rec.Endpoints[0].ID
			end()
			var leases []string
			locked := func(f func(s *store) error) {
				t.Helper()
				if err := other.config().withStore(ctx, f); err != nil {
					t.Fatal(err)
				}
			}
			locked(func(s *store) error {
				for _, a := range was {
					owner, a2 := id, a
					if taken {
						owner, a2 = "another", a.Next()
						if _, err := s.lease("other", id, a2); err != nil {
							return err
						}
					}
					if _, err := s.lease("other", owner, a); err != nil {
						return err
					}
				}
				return nil
			})
			_, end = again()
			l, err := other.Endpoints(ctx)
			if i := slices.IndexFunc(l, func(s Status) bool { return s.Container == "first" }); err != nil || i < 0 || taken == (l[i].Addresses[0].Addr() == was[0]) {
				t.Errorf("%+v %v; it had %v", l, err, was)
			}
			end()
			locked(func(s *store) (err error) {
				dir := filepath.Join(s.netDir("other"), "ip")
				all, err := names(dir)
				for _, a := range all {
					b, rerr := readFile(filepath.Join(dir, a))
					if err = errors.Join(err, rerr); string(b) == id {
						leases = append(leases, a)
					}
				}
				return errors.Join(err, s.release(endpointRef{"other", "another"}))
			})
			if len(leases) > 0 {
				t.Errorf("%q are not given back", leases)
			}
		})
	}
}

// A program is killed while it disconnects a container. The end of the run takes what is left, the next one has none of it, and whoever disconnects it as well ends that.
func TestJoinLeaving(t *testing.T) {
	nothingLeft(t)
	ctx, other := testContext(t), newBridge(t, BridgeConfig{Name: "other"})
	n := &Networks{Endpoints: []Endpoint{{Network: other}}}
	for what, r := range map[string]Request{"memory": {ID: "first", Memory: &sync.Map{}}, "file": {ID: "first", Kept: filepath.Join(t.TempDir(), "networks.json")}} {
		for _, too := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by another too: %v", what, too), func(t *testing.T) {
				again, ns, end, c := begunRun(t, r, other)
				err := c.handOver(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if l, err := c.rec.leaving(ctx, func() error { return nil }); len(l.Endpoints) != 1 || err != nil { // before it is struck out of the file
					t.Errorf("%+v %v", l, err)
				}
				hasJoined(t, "begins to leave", ns, other, "eth1", true) // and the lock is free
				if too {
					if err := n.Leave(ctx, ns); err != nil {
						t.Error(err)
					}
					hasJoined(t, "left", ns, other, "eth1", false)
				}
				end()
				ns, end = again()
				hasJoined(t, "next run", ns, other, "eth1", false)
				end()
			})
		}
	}
}

// A container cannot leave a network as long as there is no room to note that. Its run ends all the same.
func TestJoinLeavingNoRoom(t *testing.T) {
	nothingLeft(t)
	other, more := newBridge(t, BridgeConfig{Name: "other"}), newBridge(t, BridgeConfig{Name: "more"})
	r := Request{ID: "first", Kept: filepath.Join(t.TempDir(), "networks.json")}
	again, ns, end, c := begunRun(t, r, other, more)
	if err := c.handOver(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.Kept+unfinished, 0o700); err != nil {
		t.Fatal(err)
	}
	leave := func() error { return (&Networks{Endpoints: []Endpoint{{Network: other}}}).Leave(testContext(t), ns) }
	if err := leave(); err == nil {
		t.Error("it has left")
	}
	hasJoined(t, "not left", ns, other, "eth1", true)
	end()
	if err := os.Remove(r.Kept + unfinished); err != nil {
		t.Fatal(err)
	}
	ns, end = again()
	hasJoined(t, "next run", ns, other, "eth1", true)
	if err := leave(); err != nil {
		t.Error(err)
	}
	hasJoined(t, "left", ns, other, "eth1", false)
	hasJoined(t, "left", ns, more, "eth2", true)
	// Who has it leave the other one, too, is killed.
	last, err := (&Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "last"})}}}).Join(testContext(t), ns) // so that the file stays
	if err != nil {
		t.Fatal(err)
	}
	leaving := c.rec
	leaving.Endpoints = c.rec.Endpoints[1:]
	if _, err := leaving.leaving(testContext(t), func() error { return forgetKept(r.Kept, leaving.Endpoints) }); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.Kept+unfinished, 0o700); err != nil {
		t.Fatal(err)
	}
	end()
	if err := os.Remove(r.Kept + unfinished); err != nil {
		t.Fatal(err)
	}
	detach(t, last)
}

// What is removed without the lock are the ends of a run's endpoints, and of those that are noted beside it, whatever a failure of the machine has left of the notes; no device of
// the host's that has such a name for want of its own.
func TestRemoveDevices(t *testing.T) {
	nothingLeft(t)
	here, err := cookie()
	if err != nil {
		t.Fatal(err)
	}
	rec := record{StateDir: t.TempDir(), Host: here, Endpoints: []endpointRef{{"web", newID()}}}
	s := &store{dir: hostDir(rec.StateDir, here)}
	run, joined, parked, other := rec.Endpoints[0].ID, newID(), newID(), newID()
	rec.Endpoints = append(rec.Endpoints, endpointRef{"device", parked})
	dir := s.joinedDir(run)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, joined), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{run, joined, parked, other} {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cs" + id}, PeerName: "cp" + id}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(link) })
		if id == parked {
			if err := netlink.LinkSetAlias(link, markOf(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	h, err := routeHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	err = errors.Join(removeDevices(&rec), removeEnd(h, other, func() bool { return false }))
	for id, want := range map[string]bool{run: false, joined: false, parked: true, other: true} {
		if _, e := indexOf("cs" + id); (e == nil) != want || err != nil {
			t.Errorf("%s of run %s, joined %s, parked %s, other %s: %v, want it to stay: %v: %v", id, run, joined, parked, other, e, want, err)
		}
	}
}

// A container joins an overlay whose hosts are known beforehand, and has it in its next run: the tunnels with it.
func TestJoinOverlay(t *testing.T) {
	needKind(t, kindVXLAN)
	nothingLeft(t)
	hosts, local := underlay(t, 2)
	on := func(i int, p Peers) *Overlay {
		return newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(i), VNI: 42, Local: local[i], Peers: p, Host: hosts[i]})
	}
	far, c := connect(t, "far", Endpoint{Network: on(1, StaticPeers(local))})
	echo(t, far, 80)
	base, r := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web", Host: hosts[0]})}}, DNS: DNS{Disabled: true}}, Request{ID: "first", Memory: &sync.Map{}}
	ns, end := run(t, base, r)
	over := on(0, StaticPeers(local))
	joined, err := (&Networks{Endpoints: []Endpoint{{Network: over}}}).Join(testContext(t), ns)
	if err != nil {
		t.Fatal(err)
	}
	reached := func(when string, ns *Namespace) {
		t.Helper()
		for i, a := range addresses(c) {
			eventually(t, when, ns.Dial, a, 80, addresses(joined)[i].String())
		}
	}
	reached("first run", ns)
	if l := over.Peers(); l != nil {
		t.Errorf("this program listens: %v", l)
	}
	end()
	ns, end = run(t, base, r)
	reached("second run", ns)
	detach(t, joined)
	end()
}

// eager looks at a directory more often.
type eager struct{ Directory }

func (eager) Wait(ctx context.Context, _ string) error {
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Millisecond):
	}
	return nil
}

// A container joins an overlay whose hosts tell each other of their containers: as long as it is there, in this run and in later ones, they are told of it and it hears of theirs.
func TestJoinOverlayLearned(t *testing.T) {
	needKind(t, kindVXLAN)
	for what, store := range map[string]func(t *testing.T) (r Request, first, others KeyValue){
		"memory": func(*testing.T) (Request, KeyValue, KeyValue) {
			m := newMemory()
			return Request{ID: "first", Memory: &sync.Map{}}, m, m
		},
		"directory": func(t *testing.T) (Request, KeyValue, KeyValue) {
			d := Directory(t.TempDir())
			return Request{ID: "first", Kept: filepath.Join(t.TempDir(), "networks.json")}, d, eager{d}
		},
	} {
		t.Run(what, func(t *testing.T) {
			testutil.NoLeaks(t)
			nothingLeft(t)
			r, kv, kvFar := store(t)
			hosts, local := underlay(t, 3)
			on := func(i int, kv KeyValue) *Overlay {
				return newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(i), VNI: 42, Local: local[i], Peers: NewPeerStore(kv, "net/"), Host: hosts[i]})
			}
			far, c := connect(t, "far", Endpoint{Network: on(1, kvFar)})
			echo(t, far, 80)
			base := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web", Host: hosts[0]})}}, DNS: DNS{Disabled: true}}
			ns, end := run(t, base, r)
			over := on(0, kv)
			n := &Networks{Endpoints: []Endpoint{{Network: over}}}
			joined, err := n.Join(testContext(t), ns)
			if err != nil {
				t.Fatal(err)
			}
			told := func(when string, want bool) {
				t.Helper()
				var far []netip.Addr
				if !testutil.Eventually(testTime/2, func() bool { far, _ = c.zone().lookup("first"); return want == (len(far) == 2) }) {
					t.Errorf("%s: the other host knows %v, want that it does: %v", when, far, want)
				}
			}
			reaches := func(when string, ns *Namespace, c *Connection) {
				t.Helper()
				for i, a := range addresses(c) {
					eventually(t, when, ns.Dial, a, 80, addresses(joined)[i].String())
				}
			}
			told("first run", true)
			reaches("first run", ns, c)
			later, l := connect(t, "later", Endpoint{Network: on(2, kvFar)})
			echo(t, later, 80)
			if !testutil.Eventually(testTime/2, func() bool { return len(over.Peers()) == 3 }) {
				t.Errorf("it has not heard of one that comes later: %+v", over.Peers())
			}
			reaches("who comes later", ns, l)
			end()
			told("between runs", false)
			if over.Peers() != nil {
				t.Error("it listens between runs")
			}
			ns, end = run(t, base, r)
			told("second run", true)
			reaches("second run", ns, c)
			reaches("second run", ns, l)
			if err := n.Leave(testContext(t), ns); err != nil {
				t.Error(err)
			}
			told("left", false)
			end()
			if r.Memory == nil {
				return
			}
			ns, end = run(t, base, r)
			if joined, err = n.Join(testContext(t), ns); err != nil {
				t.Fatal(err)
			}
			told("joined again", true)
			end()
			ns, end = run(t, base, r)
			told("joined again, next run", true)
			reaches("joined again, next run", ns, c)
			detach(t, joined)
			told("detached", false)
			if over.Peers() != nil {
				t.Error("it listens after it was detached")
			}
			end()
		})
	}
}

// Where the hosts of an overlay tell each other by a store that one program alone has, others cannot have a container join it, and cannot tell them that it has left it.
func TestJoinOverlayOthersStore(t *testing.T) {
	needKind(t, kindVXLAN)
	nothingLeft(t)
	hosts, local := underlay(t, 1)
	host, m := hosts[0], newMemory()
	over := func(p Peers) *Overlay {
		return newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(0), VNI: 42, Local: local[0], Peers: p, Host: host})
	}
	base, n := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web", Host: host})}}, DNS: DNS{Disabled: true}}, &Networks{Endpoints: []Endpoint{{Network: over(NewPeerStore(m, "net/"))}}}
	ctx, kept := testContext(t), filepath.Join(t.TempDir(), "networks.json")
	ns, end := run(t, base, Request{ID: "first", Kept: kept})
	if _, err := n.Join(ctx, ns); !errors.Is(err, ErrPeers) || !errors.Is(err, ErrInvalid) {
		t.Error("a detached container:", err)
	}
	if l, err := over(StaticPeers(local)).Endpoints(ctx); len(l) != 0 || err != nil {
		t.Errorf("it has joined: %v %v", l, err)
	}
	end()
	ns, end = run(t, base, Request{ID: "first", Memory: &sync.Map{}})
	if _, err := n.Join(ctx, ns); err != nil {
		t.Fatal(err)
	}
	swap := func(l map[memberKey]*Overlay) (was map[memberKey]*Overlay) {
		members.mu.Lock()
		defer members.mu.Unlock()
		was, members.of = members.of, l
		return was
	}
	leave := func() error { // as another program does
		mine := swap(nil)
		defer swap(mine)
		return n.Leave(ctx, ns)
	}
	if err := leave(); !errors.Is(err, ErrPeers) {
		t.Error("leave, from another program:", err)
	}
	if l, err := over(StaticPeers(local)).Endpoints(ctx); len(l) != 0 || err != nil {
		t.Errorf("it has not left: %v %v", l, err)
	}
	end()
	if l, err := m.List(ctx, ""); len(l) != 0 || err != nil {
		t.Errorf("announced after the run: %v %v", l, err)
	}
	// By files others can tell them.
	d := Directory(t.TempDir())
	n.Endpoints[0].Network = over(NewPeerStore(d, "net/"))
	ns, end = run(t, base, Request{ID: "first", Kept: kept})
	if _, err := n.Join(ctx, ns); err != nil {
		t.Fatal(err)
	}
	if l, err := d.List(ctx, ""); len(l) != 1 || err != nil {
		t.Errorf("joined: %v %v", l, err)
	}
	if err := leave(); err != nil {
		t.Error(err)
	}
	if l, err := d.List(ctx, ""); len(l) != 0 || err != nil {
		t.Errorf("left: %v %v", l, err)
	}
	// Where another program had it join, who ends the run tells them.
	c, err := n.Join(ctx, ns)
	if err != nil {
		t.Fatal(err)
	}
	mine := swap(nil)
	end()
	if l, err := d.List(ctx, ""); len(l) != 0 || err != nil {
		t.Errorf("after the run: %v %v", l, err)
	}
	swap(mine)
	detach(t, c)
	// A path or a prefix that JSON does not keep is not for others.
	for _, p := range []Peers{NewPeerStore(Directory("/\xff"), "net/"), NewPeerStore(d, "\xff/")} {
		if k := over(p).stored(); k != nil {
			t.Errorf("it is stored: %q", *k)
		}
	}
}

// A program cannot reach the store of an overlay that a container is to join: it has joined nothing.
func TestJoinOverlayStoreFails(t *testing.T) {
	needKind(t, kindVXLAN)
	nothingLeft(t)
	hosts, local := underlay(t, 1)
	m := newMemory()
	over := newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(0), VNI: 42, Local: local[0], Peers: NewPeerStore(m, "net/"), Host: hosts[0]})
	base, n := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web", Host: hosts[0]})}}, DNS: DNS{Disabled: true}}, &Networks{Endpoints: []Endpoint{{Network: over}}}
	r := Request{ID: "first", Memory: &sync.Map{}}
	ns, end := run(t, base, r)
	m.fail(os.ErrClosed)
	if _, err := n.Join(testContext(t), ns); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	r.Memory.Range(func(key, _ any) bool { t.Errorf("%v is remembered", key); return true })
	m.fail(nil)
	if _, err := n.Join(testContext(t), ns); err != nil {
		t.Fatal(err)
	}
	end()
	m.fail(os.ErrClosed)
	a, err := base.Prepare(testContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	again := newNS(t)
	if err := a.Attach(testContext(t), Target{Netns: again.File()}); !errors.Is(err, os.ErrClosed) {
		t.Error("the next run:", err)
	}
	m.fail(nil)
	detach(t, a.(*Connection))
	ns, end = run(t, base, r)
	if err := n.Leave(testContext(t), ns); err != nil {
		t.Error("the one after:", err)
	}
	end()
}

// outside is a store that is not called in another network namespace than the program's.
type outside struct {
	*memory
	t    testing.TB
	mine string
}

func newOutside(t testing.TB) outside {
	t.Helper()
	mine, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return outside{newMemory(), t, mine}
}

func (o outside) look(op string) {
	if here, err := os.Readlink("/proc/thread-self/ns/net"); here != o.mine || err != nil {
		o.t.Errorf("%s: called in %s, the program is in %s: %v", op, here, o.mine, err)
	}
}

func (o outside) Put(ctx context.Context, k string, v []byte) error {
	o.look("put")
	return o.memory.Put(ctx, k, v)
}

func (o outside) Delete(ctx context.Context, k string) error {
	o.look("delete")
	return o.memory.Delete(ctx, k)
}

// The other hosts cannot be told that a container is gone: the next attempt tells them, and after Leave the end of the run.
func TestJoinOverlayToldLater(t *testing.T) {
	needKind(t, kindVXLAN)
	testutil.NoLeaks(t)
	nothingLeft(t)
	hosts, local := underlay(t, 1)
	ctx, m := testContext(t), newOutside(t)
	over := newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(0), VNI: 42, Local: local[0], Peers: NewPeerStore(m, "net/"), Host: hosts[0]})
	base, n := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web", Host: hosts[0]})}}, DNS: DNS{Disabled: true}}, &Networks{Endpoints: []Endpoint{{Network: over}}}
	told := func(when string, want int) {
		t.Helper()
		if l, err := m.List(ctx, ""); len(l) != want || err != nil {
			t.Errorf("%s: %v %v", when, l, err)
		}
	}
	for what, ends := range map[string]func(ns *Namespace, detach func() error) error{
		"detach": func(_ *Namespace, detach func() error) error { return detach() },
		"leave":  func(ns *Namespace, _ func() error) error { return n.Leave(ctx, ns) },
	} {
		a, err := base.Prepare(ctx, Request{ID: "first", Memory: &sync.Map{}})
		if err != nil {
			t.Fatal(err)
		}
		ns := newNS(t)
		if err := a.Attach(ctx, Target{Netns: ns.File()}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Join(ctx, ns); err != nil {
			t.Fatal(err)
		}
		told(what+": joined", 1)
		m.fail(os.ErrClosed)
		if err := ends(ns, func() error { return a.Detach(ctx) }); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
		m.fail(nil)
		detach(t, a.(*Connection))
		told(what+": detached", 0)
		if over.Peers() != nil {
			t.Errorf("%s: it listens still", what)
		}
	}
	ns, end := run(t, base, Request{ID: "first", Memory: &sync.Map{}})
	if _, err := n.Join(ctx, ns); err != nil {
		t.Fatal(err)
	}
	if err := n.Leave(ctx, ns); err != nil || over.Peers() != nil {
		t.Errorf("leave: %v, and it hears of %v", err, over.Peers())
	}
	told("left", 0)
	end()
}

// A container joins a network device of the host's, which is given back at the end of each run, and when it leaves.
func TestJoinDevice(t *testing.T) {
	_, host, _ := world(t)
	awaitLinkLocal(t)
	dress(t)
	nothingLeft(t)
	before := deviceState(t, "csworld")
	base := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}
	for what, cfg := range map[string]DeviceConfig{"as it is": {Device: "csworld"}, "other addresses": {Device: "csworld", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}}} {
		t.Run(what, func(t *testing.T) {
			want := host[0]
			if len(cfg.Addresses) > 0 {
				want = cfg.Addresses[0].Addr()
			}
			n, r := &Networks{Endpoints: []Endpoint{{Network: newDevice(t, cfg)}}}, Request{ID: "first", Kept: filepath.Join(t.TempDir(), "networks.json")}
			inside := func(when string, ns *Namespace) {
				t.Helper()
				err := ns.Do(func() error {
					link, err := netlink.LinkByName("eth1")
					if err != nil {
						return err
					}
					l, err := netlink.AddrList(link, netlink.FAMILY_V4)
					if !slices.ContainsFunc(l, func(a netlink.Addr) bool { return addrOf(a.IP) == want }) {
						t.Errorf("%s: %v, without %v", when, l, want)
					}
					return err
				})
				if err != nil {
					t.Errorf("%s: %v", when, err)
				}
			}
			given := func(when string) {
				t.Helper()
				if after := deviceState(t, "csworld"); after != before {
					t.Errorf("%s: %s\nbefore: %s", when, after, before)
				}
			}
			ns, end := run(t, base, r)
			if _, err := n.Join(testContext(t), ns); err != nil {
				t.Fatal(err)
			}
			inside("first run", ns)
			end()
			given("between runs")
			ns, end = run(t, base, r)
			inside("second run", ns)
			if err := n.Leave(testContext(t), ns); err != nil {
				t.Error(err)
			}
			given("left")
			end()
			_, end = run(t, base, r)
			given("the run after")
			end()
		})
	}
}

// The program that runs a container has it join a network whose other end is the program, in each of its runs.
func TestJoinTun(t *testing.T) {
	needTun(t)
	nothingLeft(t)
	files := make(chan *os.File, 1)
	tun, err := NewTun(TunConfig{Name: "mine", Subnets: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/24")}, Open: func(f *os.File, _ Status) error { files <- f; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	base, n := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}, &Networks{Endpoints: []Endpoint{{Network: tun, Interface: "tun0"}}}
	m := &sync.Map{}
	ns, end := run(t, base, Request{ID: "first", Memory: m})
	if _, err := n.Join(testContext(t), ns); err != nil {
		t.Fatal(err)
	}
	carries := func(ns *Namespace) {
		t.Helper()
		f := <-files
		defer f.Close()
		defer greet(t, ns, f, "10.7.0.99:99").Close()
		b := make([]byte, 2000)
		for n, err := f.Read(b); !strings.HasSuffix(string(b[:n]), "hello"); n, err = f.Read(b) { // the kernel asks for routers, too
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	carries(ns)
	end()
	ns, end = run(t, base, Request{ID: "first", Memory: m})
	carries(ns)
	if err := n.Leave(testContext(t), ns); err != nil {
		t.Error(err)
	}
	end()
	m.Range(func(key, _ any) bool { t.Errorf("%v is remembered", key); return true })
	_, end = run(t, base, Request{ID: "first", Memory: m})
	end()
	if len(files) != 0 {
		t.Error("it was joined after it was left")
	}
}

// The run ends while the program joins a network whose other end it is: nothing of that is remembered.
func TestJoinTunEnded(t *testing.T) {
	needTun(t)
	nothingLeft(t)
	var end func()
	tun, err := NewTun(TunConfig{Name: "mine", Open: func(f *os.File, _ Status) error { end(); return f.Close() }})
	if err != nil {
		t.Fatal(err)
	}
	var ns *Namespace
	m := &sync.Map{}
	ns, end = run(t, &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: DNS{Disabled: true}}, Request{ID: "first", Memory: m})
	if _, err := (&Networks{Endpoints: []Endpoint{{Network: tun}}}).Join(testContext(t), ns); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	m.Range(func(key, _ any) bool { t.Errorf("%v is remembered", key); return true })
}

// Networks are joined again in the order in which they were, whatever the names of their devices.
func TestJoinOrder(t *testing.T) {
	m := &sync.Map{}
	want := []string{"eth10", "eth2", "a", "eth1"}
	for i, name := range want {
		m.Store(keptKey(name), keptEndpoint{ID: name, Nth: i + 1, Network: netState{Name: "n"}, Interface: name})
	}
	l, err := (&Connection{req: Request{Memory: m}}).kept()
	var got []string
	for _, k := range l {
		got = append(got, k.Interface)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q %v", got, err)
	}
}

// Of the networks that come after a container's own an unreadable one is in nobody's way.
func TestJoinUnreadable(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	ctx, host := testContext(t), web.config()
	here, err := cookie()
	if err != nil {
		t.Fatal(err)
	}
	locked := func(f func(*store) error) {
		t.Helper()
		dir, err := stateDir(host.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := openStore(ctx, dir, here)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if err := errors.Join(s.begin(), f(s)); err != nil {
			t.Fatal(err)
		}
	}
	var others []string
	add := func(s *store) (err error) { // some before and some after: directories are listed in any order
		for range 10 {
			others = append(others, "z"+newID())
			err = errors.Join(err, s.saveNetwork(&netState{Name: others[len(others)-1], linkSpec: linkSpec{Kind: kindTap}}))
		}
		return err
	}
	drop := sync.OnceFunc(func() {
		locked(func(s *store) (err error) {
			for _, name := range others {
				err = errors.Join(err, s.dropNetwork(name))
			}
			return err
		})
	})
	locked(add)
	ns, end := run(t, &Networks{Endpoints: []Endpoint{{Network: web}}, DNS: DNS{Disabled: true}}, Request{ID: "first"})
	t.Cleanup(drop)
	locked(add)
	locked(func(s *store) error {
		l, err := names(filepath.Join(s.dir, "networks"))
		l = l[slices.Index(l, "web")+1:]
		for _, name := range l {
			err = errors.Join(err, os.WriteFile(filepath.Join(s.netDir(name), "ep", "x.json"), []byte("{"), 0o600))
		}
		if len(l) == 0 {
			t.Error("none comes after it")
		}
		return err
	})
	if e, err := host.base(ctx, ns); err != nil || e.Container != "first" {
		t.Errorf("%+v %v", e, err)
	}
	drop()
	end()
}

// Who is no container's, or not one that began with a network, cannot join; nor can what is not data.
func TestJoinRefused(t *testing.T) {
	nothingLeft(t)
	web, other := newBridge(t, BridgeConfig{Name: "web"}), newBridge(t, BridgeConfig{Name: "other"})
	ctx := testContext(t)
	for what, ns := range map[string]*Namespace{"a namespace of nobody's": newNS(t), "one that was connected": func() *Namespace { ns, _ := connect(t, "x", Endpoint{Network: web}); return ns }()} {
		if _, err := (&Networks{Endpoints: []Endpoint{{Network: other}}}).Join(ctx, ns); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ns, _ := run(t, &Networks{Endpoints: []Endpoint{{Network: web}}}, Request{ID: "first"})
	tap, err := NewTun(TunConfig{Name: "tap", TAP: true, Open: func(f *os.File, _ Status) error { return f.Close() }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Networks{Endpoints: []Endpoint{{Network: tap}}}).Join(ctx, ns); !errors.Is(err, ErrInvalid) {
		t.Error("a device of this program's:", err)
	}
	if _, err := (&Networks{Endpoints: []Endpoint{{Network: other, Ports: []Port{{Container: 80, HostAddr: netip.MustParseAddr("127.0.0.1")}}}}}).Join(ctx, ns); !errors.Is(err, ErrInvalid) {
		t.Error("a port of a loopback address:", err)
	}
	if err := (&Networks{Endpoints: []Endpoint{{Network: web}}}).Leave(ctx, ns); !errors.Is(err, ErrNotFound) {
		t.Error("leaves what it began with:", err)
	}
}

// roleJoin is a program that runs a container, has it join a network, and runs it again, to be killed.
func roleJoin() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	web, err := NewBridge(BridgeConfig{Name: "web"})
	fail(err)
	other, err := NewBridge(BridgeConfig{Name: "other"})
	fail(err)
	base, r := &Networks{Endpoints: []Endpoint{{Network: web}}, DNS: DNS{Disabled: true}}, Request{ID: "first", Kept: os.Getenv("CAISSON_TEST_KEPT")}
	for i := range 2 {
		a, err := base.Prepare(ctx, r)
		fail(err)
		ns, err := New()
		fail(err)
		fail(a.Attach(ctx, Target{Netns: ns.File()}))
		n := &Networks{Endpoints: []Endpoint{{Network: other, Ports: []Port{{Container: 80}}}}}
		if i == 0 {
			_, err := n.Join(ctx, ns)
			fail(err)
			fmt.Println("made")
		} else {
			fail(n.Leave(ctx, ns))
		}
		fail(a.Detach(ctx))
		fail(ns.Close())
	}
	fmt.Println("done")
}

// The program is killed at a system call of any of its threads; each time the recovery leaves the host as it was.
func TestJoinKilled(t *testing.T) {
	nothingLeft(t)
	kept := filepath.Join(t.TempDir(), "networks.json")
	t.Setenv("CAISSON_TEST_KEPT", kept)
	killedEach(t, "join", 4, func(int) { // what the file says would be another container's
		_ = os.Remove(kept)
	})
}
