package netns

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// serveNames starts the server of names inside. The sockets are made before any process of the container runs, so that none
// of them can take the address.
func (c *Connection) serveNames(ctx context.Context, t Target) error {
	if c.to != nil { // whoever disconnects it has the server of its container know
		return c.nameElsewhere(ctx, t)
	}
	if c.bare || c.unattended() {
		return c.nameLate(ctx, t)
	}
	if !c.ownServer() {
		return nil
	}
	key, err := keyOf(t.Netns)
	if err != nil {
		return err
	}
	inside := &Namespace{t.Netns}
	address := net.JoinHostPort(serverAddr.String(), "53")
	packets, err := inside.ListenPacket(context.Background(), "udp4", address)
	if err != nil {
		return &Error{Op: "serve names on", Object: address, Err: err, Remedy: "the loopback device inside must be up; DNS.Disabled leaves the server out"}
	}
	streams, err := inside.Listen(context.Background(), "tcp4", address)
	if err != nil {
		packets.Close()
		return &Error{Op: "serve names on", Object: address, Err: err}
	}
	zone := c.zone()
	if n, err := cookieIn(packets); err == nil {
		zone.noted = &noted{dir: c.stateDir(), late: lateDir(c.stateDir(), n)}
	}
	s := newNameServer(zone, c.upstream(), c.dialFromHost)
	s.policy = c.namePolicy()
	s.run(packets, streams)
	c.services = append(c.services, nowNamed(key, s, zone))
	return nil
}

// upstream returns what finds the resolvers to forward to; nil for networks without a way out: names are a way out as well.
func (c *Connection) upstream() func() []netip.AddrPort {
	if c.internal() {
		return nil
	}
	if l := c.nets.DNS.Servers; len(l) > 0 {
		return func() []netip.AddrPort { return l }
	}
	return func() []netip.AddrPort {
		var out []netip.AddrPort
		for _, a := range hostResolvConf(hostResolv).resolvers() {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
		return out
	}
}

// neighbours returns the other endpoints of the connection's networks.
func (c *Connection) neighbours() []*epState {
	own := map[string]bool{}
	for _, e := range c.eps {
		own[e.ID] = true
	}
	var out []*epState
	for _, v := range c.zone().views {
		v.refresh()
		for _, e := range v.eps {
			if !own[e.ID] {
				out = append(out, e)
			}
		}
	}
	return out
}

// netZone knows the names of networks from their endpoints' files. It needs no lock: each is written whole, once, or a second time when it
// gets its names (see [Pool]), and removed.
type netZone struct {
	mu    sync.Mutex
	views []*view
	noted *noted // nil: nothing is looked for
}

// all are the views, with those of networks that were noted.
func (z *netZone) all() []*view {
	if z.noted == nil || len(z.noted.views) == 0 {
		return z.views
	}
	return slices.AppendSeq(slices.Clone(z.views), maps.Values(z.noted.views))
}

// view is one network, as far as it has been read.
type view struct {
	dir     string
	network *netState
	changed time.Time // of the directory
	read    time.Time
	looked  time.Time           // for a name
	eps     map[string]*epState // by file
	byName  map[string][]netip.Addr
	byAddr  map[netip.Addr]string
}

func (c *Connection) zone() *netZone {
	z := &netZone{}
	for _, n := range c.states {
		dir := filepath.Join(c.rec.StateDir, strconv.FormatUint(c.rec.Host, 10), "networks", n.Name, "ep")
		z.views = append(z.views, &view{dir: dir, network: n, eps: map[string]*epState{}})
	}
	return z
}

// tick is the coarseness of a directory's time of change: two changes within it may look like one.
const tick = 20 * time.Millisecond

// refresh reads what has been added since, and forgets what is gone. While the directory cannot be read it stays with what it knows.
func (v *view) refresh() {
	st, err := os.Stat(v.dir)
	if err == nil && v.byName != nil && st.ModTime().Equal(v.changed) && v.read.Sub(v.changed) > tick {
		return
	}
	now := time.Now()
	l, lerr := names(v.dir)
	if lerr != nil {
		return
	}
	seen := map[string]bool{}
	for _, name := range l {
		if ext := filepath.Ext(name); ext != ".json" && ext != farExt {
			continue
		}
		seen[name] = true
		if e := v.eps[name]; e != nil && !e.Waiting {
			continue
		}
		e, rerr := readEndpoint(filepath.Join(v.dir, name))
		if rerr != nil {
			err = rerr // looked at again, though the directory does not change
		} else if e != nil {
			v.eps[name] = e
		}
	}
	v.byName, v.byAddr = map[string][]netip.Addr{}, map[netip.Addr]string{}
	for name, e := range v.eps {
		if !seen[name] {
			delete(v.eps, name)
			continue
		}
		v.add(e)
	}
	if err == nil {
		v.changed, v.read = st.ModTime(), now
	}
}

func (v *view) add(e *epState) {
	for i, n := range e.Names {
		for _, p := range e.Addresses {
			v.byName[n] = append(v.byName[n], p.Addr())
			if i == 0 {
				v.byAddr[p.Addr()] = n
			}
		}
	}
}

// recent is for how long a name that was found is not looked for again: a busy client would have the directory asked for its time at each
// query.
const recent = time.Millisecond

// find finds a name among those that have been read.
func (v *view) find(name string) []netip.Addr {
	l := v.byName[name]
	if short, ok := strings.CutSuffix(name, "."+strings.ToLower(v.network.Name)); l == nil && ok {
		l = v.byName[short]
	}
	return l
}

// lookup finds a name, alone or with the network's as domain.
func (z *netZone) lookup(name string) (out []netip.Addr, known bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	now := time.Now()
	if z.noted != nil && now.Sub(z.noted.looked) > recent {
		z.noted.refresh(now)
	}
	out = z.find(name, now)
	if len(out) == 0 && z.noted != nil && z.noted.looked != now && z.noted.refresh(now) {
		out = z.find(name, now)
	}
	return slices.Clone(out), len(out) > 0
}

func (z *netZone) find(name string, now time.Time) (out []netip.Addr) {
	views := z.all()
	for i, v := range views {
		if slices.ContainsFunc(views[:i], func(o *view) bool { return o.dir == v.dir }) {
			continue // connected to it once more
		}
		l := v.find(name)
		if l == nil || now.Sub(v.looked) > recent { // who has just come must be found, who has just gone may be
			v.refresh()
			v.looked = now
			l = v.find(name)
		}
		out = append(out, l...)
	}
	return out
}

func (z *netZone) reverse(a netip.Addr) (name string, ours bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.noted != nil {
		z.noted.refresh(time.Now())
	}
	for _, v := range z.all() {
		if _, ok := v.network.subnetOf(a); !ok {
			continue
		}
		v.refresh()
		return v.byAddr[a], true
	}
	return "", false
}
