package netns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// resolveOverlay finds what is in the way of the tunnels, and fills in the MTU.
func (c *BridgeConfig) resolveOverlay(h *netlink.Handle, n *netState, others []*netState) error {
	if err := probeKind(kindVXLAN); err != nil {
		return err
	}
	for _, o := range others {
		if o.VNI == c.link.VNI && o.Port == c.link.Port {
			return fmt.Errorf("%w: number %d on port %d is that of network %s", ErrExists, o.VNI, o.Port, o.Name)
		}
	}
	mtu, err := mtuOf(h, c.link.Local)
	if err != nil {
		return err
	}
	overhead := 50
	if c.link.tunnelLocal(c.link.Local).Is6() {
		overhead = 70
	}
	if c.carrier != nil {
		if err := c.carrier.Probe(); err != nil {
			return err
		}
		if !haveIPv6() {
			return fmt.Errorf("%w: a carrier needs IPv6", ErrUnsupported)
		}
		overhead += c.carrier.Overhead()
	}
	if n.MTU = c.MTU; n.MTU == 0 {
		n.MTU = mtu - overhead
	}
	return nil
}

// mtuOf returns the MTU of the device that has an address.
func mtuOf(h *netlink.Handle, a netip.Addr) (int, error) {
	l, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, err
	}
	for _, k := range l {
		if addrOf(k.IP) != a {
			continue
		}
		link, err := h.LinkByIndex(k.LinkIndex)
		if err != nil {
			return 0, err
		}
		return link.Attrs().MTU, nil
	}
	return 0, fmt.Errorf("%w: no device of the host has the address %v", ErrNotFound, a)
}

// ensureVXLAN makes the device of the tunnels, a port of the bridge.
func ensureVXLAN(h *netlink.Handle, n *netState) error {
	name := n.tunnel()
	if name == "" {
		return nil
	}
	link, err := h.LinkByName(name)
	if err == nil && link.Attrs().Alias == aliasOf(n.Name) {
		return nil
	}
	if err != nil {
		v := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: n.MTU, TxQLen: -1}, VxlanId: n.VNI, SrcAddr: n.tunnelLocal(n.Local).AsSlice(), Port: n.Port,
			Learning: n.Flood, Proxy: !n.Flood, UDPCSum: true}
		if err := h.LinkAdd(v); err != nil {
			return err
		}
		if link, err = h.LinkByName(name); err != nil {
			return err
		}
	}
	bridge, err := h.LinkByName(n.Bridge)
	if err != nil {
		return err
	}
	if err := h.LinkSetMasterByIndex(link, bridge.Attrs().Index); err != nil {
		return err
	}
	if haveIPv6() { // no address of its own; answers for neighbours need IPv6 all the same
		if err := setSysctl("/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode", "1"); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	return h.LinkSetAlias(link, aliasOf(n.Name))
}

// noMAC stands for all hardware addresses in the table of the tunnels.
const noMAC = "00:00:00:00:00:00"

// program makes the kernel's tables those of t: what is missing is added, and what is too much removed.
func (n *netState) program(t tunnels) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(n.tunnel())
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	return errors.Join(n.programHosts(h, index, t), programNeighbours(h, index, t))
}

// programHosts programs behind which host which hardware address is.
func (n *netState) programHosts(h *netlink.Handle, index int, t tunnels) error {
	type entry struct{ mac, dst string }
	want := map[entry]bool{}
	for mac, host := range t.macs {
		want[entry{mac, host.String()}] = true
	}
	for _, host := range t.flood {
		want[entry{noMAC, host.String()}] = true
	}
	have, err := h.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(index), Flags: netlink.NTF_SELF})
	if err != nil {
		return fmt.Errorf("list hosts: %w", err)
	}
	var faults []error
	for _, k := range have {
		if k.LinkIndex != index || k.Flags&netlink.NTF_SELF == 0 || k.IP == nil || k.State&netlink.NUD_PERMANENT == 0 {
			continue
		}
		e := entry{k.HardwareAddr.String(), addrOf(k.IP).String()}
		if want[e] {
			delete(want, e)
			continue
		}
		if err := h.NeighDel(fdb(index, k.HardwareAddr, k.IP)); err != nil && !errors.Is(err, unix.ENOENT) {
			faults = append(faults, fmt.Errorf("remove host %v: %w", k.IP, err))
		}
	}
	for e := range want {
		mac, _ := net.ParseMAC(e.mac)
		set := h.NeighSet
		if e.mac == noMAC {
			set = h.NeighAppend
		}
		if err := set(fdb(index, mac, net.ParseIP(e.dst))); err != nil && !errors.Is(err, unix.EEXIST) {
			faults = append(faults, fmt.Errorf("add host %s: %w", e.dst, err))
		}
	}
	return errors.Join(faults...)
}

func fdb(index int, mac net.HardwareAddr, dst net.IP) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF, HardwareAddr: mac, IP: dst}
}

// programNeighbours programs which hardware address an address has: what the tunnels' device answers questions from.
func programNeighbours(h *netlink.Handle, index int, t tunnels) error {
	want := maps.Clone(t.addrs)
	var faults []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		have, err := h.NeighList(index, family)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("list neighbours: %w", err)
		}
		for _, k := range have {
			a := addrOf(k.IP)
			if k.State&netlink.NUD_PERMANENT == 0 {
				continue
			}
			if want[a] == k.HardwareAddr.String() {
				delete(want, a)
				continue
			}
			if err := h.NeighDel(&k); err != nil && !errors.Is(err, unix.ENOENT) {
				faults = append(faults, fmt.Errorf("remove neighbour %v: %w", a, err))
			}
		}
	}
	for a, m := range want {
		mac, _ := net.ParseMAC(m)
		if err := h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}); err != nil {
			faults = append(faults, fmt.Errorf("add neighbour %v: %w", a, err))
		}
	}
	return errors.Join(faults...)
}

// farExt is the end of the names of files that tell about containers of other hosts, for the server of names. What is in such a
// file never changes: the name is made from it.
const farExt = ".far"

// saveFar makes the files those of t. It runs under the lock.
func (s *store) saveFar(n *netState, t tunnels) error {
	dir := filepath.Join(s.netDir(n.Name), "ep")
	want := map[string]*epState{}
	for _, e := range t.names {
		f := &epState{Network: n.Name, Names: e.Names, MAC: e.MAC}
		for _, a := range e.Addresses {
			f.Addresses = append(f.Addresses, whole(a))
		}
		sum := sha256.Sum256(fmt.Append(nil, f.Names, f.Addresses, f.MAC))
		f.ID = hex.EncodeToString(sum[:12])
		want[f.ID+farExt] = f
	}
	was, err := names(dir)
	faults := []error{err}
	for _, name := range was {
		if filepath.Ext(name) != farExt {
			continue
		}
		if want[name] != nil {
			delete(want, name)
			continue
		}
		faults = append(faults, os.Remove(filepath.Join(dir, name)))
	}
	for name, f := range want {
		faults = append(faults, writeJSON(filepath.Join(dir, name), f))
	}
	return errors.Join(faults...)
}

// learn takes what is known about the other hosts.
func (o *Overlay) learn(ctx context.Context, hosts []OverlayHost) error {
	o.mu.Lock()
	if ctx.Err() == nil {
		o.known, o.heard = hosts, true
	}
	o.mu.Unlock()
	return o.program(ctx)
}

// program tells the kernel, and the server of names, what is known. With the lock of the store it takes what was told last, whoever is first.
func (o *Overlay) program(ctx context.Context) error {
	return o.cfg.withStore(ctx, func(s *store) error {
		o.mu.Lock()
		hosts, heard := o.known, o.heard
		o.mu.Unlock()
		n, err := s.network(o.cfg.Name)
		if n == nil || err != nil || !heard {
			return err
		}
		t := n.tunnelsTo(hosts)
		return errors.Join(n.programCarrier(o.cfg.carrier, hosts), n.program(t), s.saveFar(n, t))
	})
}

// announce tells the others what containers are here.
func (o *Overlay) announce(ctx context.Context) error {
	o.mu.Lock()
	self := OverlayHost{Local: o.cfg.link.Local, Key: o.key}
	o.mu.Unlock()
	l, err := o.cfg.listEndpoints(ctx)
	if err != nil {
		return err
	}
	for _, s := range l {
		e := OverlayEndpoint{Names: s.Names, MAC: s.MAC.String()}
		for _, p := range s.Addresses {
			e.Addresses = append(e.Addresses, p.Addr())
		}
		self.Endpoints = append(self.Endpoints, e)
	}
	slices.SortFunc(self.Endpoints, func(a, b OverlayEndpoint) int { return strings.Compare(a.MAC, b.MAC) })
	if err := o.peers.Announce(ctx, self); err != nil {
		return &Error{Op: "announce", Object: "network " + o.cfg.Name, Err: err, Remedy: "Peers must be reachable"}
	}
	return nil
}

// patience is how long a container waits to hear of the other hosts before its command runs.
const patience = 20 * time.Second

// join begins to listen to the others with the first container, and waits until what they told is in the kernel.
func (o *Overlay) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o.mu.Lock()
	o.users++
	var heard chan error
	if o.users == 1 {
		heard = o.listen()
	}
	o.mu.Unlock()
	if heard == nil { // since it was told, the network may have gone with a container's run, and been made again
		if err := o.program(ctx); err != nil {
			return &Error{Op: "learn of other hosts", Object: "network " + o.cfg.Name, Err: err}
		}
	} else {
		select {
		case err := <-heard:
			if err != nil {
				return &Error{Op: "learn of other hosts", Object: "network " + o.cfg.Name, Err: err, Remedy: "Peers must be reachable"}
			}
		case <-ctx.Done():
			return &Error{Op: "learn of other hosts", Object: "network " + o.cfg.Name, Err: ctx.Err(), Remedy: "Peers must be reachable"}
		}
	}
	return o.announce(ctx)
}

// listen starts the goroutine that listens, and returns what comes of the first news. It is called with the lock held.
func (o *Overlay) listen() chan error {
	ctx, cancel := context.WithCancel(context.Background())
	heard, done := make(chan error, 1), make(chan struct{})
	tell := func(err error) {
		select {
		case heard <- err:
		default:
		}
	}
	o.stop, o.done = cancel, done
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			err := o.peers.Watch(ctx, func(hosts []OverlayHost) { tell(o.learn(ctx, hosts)) })
			tell(err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return heard
}

// leave is called for each container that joined: the last one ends the listening.
func (o *Overlay) leave() {
	o.mu.Lock()
	var done chan struct{}
	if o.users--; o.users == 0 {
		o.stop()
		done, o.known, o.heard = o.done, nil, false
	}
	o.mu.Unlock()
	if done != nil {
		<-done
	}
}

// member is a container's part in an overlay, a service.
type member struct {
	o  *Overlay
	id string // of the endpoint
}

func (m member) Close() error { m.o.leave(); return nil }

// joinOverlays lets the connection take part in what the hosts tell each other.
func (c *Connection) joinOverlays(ctx context.Context) error {
	for i := range c.states {
		o, ok := c.nets.Endpoints[i].Network.(*Overlay)
		if !ok {
			continue
		}
		c.services = append(c.services, member{o, c.eps[i].ID})
		if err := o.join(ctx); err != nil {
			return err
		}
	}
	return nil
}

// members are what this program is told about other hosts for containers that have joined overlays.
var members struct {
	mu sync.Mutex
	of map[memberKey]*Overlay
}

// memberKey is the first endpoint of a container's run, and one that it has joined.
type memberKey struct{ base, id string }

// passMembers has what other hosts tell go with the run of the container that joins, and not with the connection. StaticPeers have told the kernel all.
func (c *Connection) passMembers() {
	c.services = slices.DeleteFunc(c.services, func(s service) bool {
		m, ok := s.(member)
		if ok && m.o.cfg.link.Flood {
			m.o.leave()
		} else if ok {
			members.mu.Lock()
			defer members.mu.Unlock()
			if members.of == nil {
				members.of = map[memberKey]*Overlay{}
			}
			members.of[memberKey{c.to.base.ID, m.id}] = m.o
		}
		return ok
	})
}

// membersOf are the networks of those that are wanted.
func membersOf(wanted func(memberKey) bool) (out []*Overlay) {
	members.mu.Lock()
	defer members.mu.Unlock()
	for k, o := range members.of {
		if wanted(k) {
			out = append(out, o)
		}
	}
	return out
}

// closeMembers ends that for those that are wanted, and returns their networks.
func closeMembers(wanted func(memberKey) bool) (out []*Overlay) {
	members.mu.Lock()
	for k, o := range members.of {
		if wanted(k) {
			delete(members.of, k)
			out = append(out, o)
		}
	}
	members.mu.Unlock()
	for _, o := range out {
		o.leave()
	}
	return out
}

// closeMembers ends it for what the connection's run has joined; for a connection made by Join, for its endpoints.
func (c *Connection) closeMembers() []*Overlay {
	return closeMembers(func(k memberKey) bool {
		if c.to == nil {
			return slices.ContainsFunc(c.eps, func(e *epState) bool { return e.ID == k.base })
		}
		return (c.to.over || k.base == c.to.base.ID) && slices.ContainsFunc(c.rec.Endpoints, func(r endpointRef) bool { return r.ID == k.id })
	})
}

// joinedByOthers are the overlays that other programs have the run on, as far as this one can tell their hosts: who made the container join may have ended.
func (c *Connection) joinedByOthers(s *store) (out []*Overlay, err error) {
	var faults []error
	for _, e := range c.eps {
		l, err := s.joinedTo(e.ID)
		faults = append(faults, err)
		for _, k := range l {
			if k.Store == nil || k.Network.Kind != kindOverlay || len(membersOf(func(m memberKey) bool { return m.id == k.ID })) > 0 {
				continue
			}
			w, err := k.Network.again(c.host, &k)
			if err != nil {
				faults = append(faults, &Error{Op: "withdraw from other hosts", Object: "network " + k.Network.Name, Err: err})
				continue
			}
			out = append(out, w.(*Overlay))
		}
	}
	return out, errors.Join(faults...)
}

// withdraw tells the other hosts of overlays that a container has left them, as far as this program can.
func (c *BridgeConfig) withdraw(ctx context.Context, left []keptEndpoint) error {
	var faults []error
	for _, k := range left {
		if k.Network.Kind != kindOverlay || k.Network.Flood {
			continue
		}
		mine := func(m memberKey) bool { return m.id == k.ID }
		l := membersOf(mine)
		if len(l) == 0 {
			w, err := k.Network.again(c, &k)
			if err != nil {
				faults = append(faults, &Error{Op: "withdraw from other hosts", Object: "network " + k.Network.Name, Err: err})
				continue
			}
			l = append(l, w.(*Overlay))
		}
		err := announce(ctx, l)
		if err == nil { // else the end of the run tells them
			closeMembers(mine)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// stored is where the hosts tell each other if others can look there too; else nil.
func (o *Overlay) stored() *keptStore {
	p, ok := o.peers.(*peerStore)
	if !ok || o.cfg.carrier != nil {
		return nil
	}
	d, ok := p.kv.(Directory)
	dir, err := filepath.Abs(string(d))
	if !ok || err != nil || !utf8.ValidString(dir) || !utf8.ValidString(p.prefix) { // in JSON it would be another
		return nil
	}
	return &keptStore{dir, p.prefix}
}

// peersOf are the Peers of an overlay that was joined.
func (n *netState) peersOf(k *keptEndpoint) (Peers, error) {
	switch {
	case n.Flood:
		return StaticPeers(k.Peers), nil
	case k.Store == nil || n.Carrier != "":
		return nil, fmt.Errorf("%w: %w", ErrInvalid, ErrPeers)
	case !filepath.IsAbs(k.Store.Dir):
		return nil, fault("network "+n.Name, "%q is no directory for its hosts", k.Store.Dir)
	}
	return NewPeerStore(Directory(k.Store.Dir), k.Store.Prefix), nil
}

// announceOverlays tells the others what became of the connection's containers: that they have names, or that they are gone.
func (c *Connection) announceOverlays(ctx context.Context, joined ...*Overlay) error {
	if c.to == nil {
		joined = append(slices.Clone(joined), c.overlays()...)
	} else {
		joined = c.overlays()
	}
	return announce(ctx, joined)
}

func announce(ctx context.Context, l []*Overlay) error {
	var faults []error
	for _, o := range l {
		ctx, cancel := context.WithTimeout(ctx, patience)
		faults = append(faults, o.announce(ctx))
		cancel()
	}
	return errors.Join(faults...)
}

func (c *Connection) overlays() (out []*Overlay) {
	for i := range c.states { // those that were reserved
		if o, ok := c.nets.Endpoints[i].Network.(*Overlay); ok {
			out = append(out, o)
		}
	}
	return out
}
