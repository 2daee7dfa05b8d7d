package netns

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// What a container has joined is noted three times:
//
//   - beside its run (DIR/COOKIE/joined/BASE/ID), so that whoever undoes the run's connection undoes that too, whichever program made it,
//   - for a detached container in a file of its directory (Request.Kept), from which the next run has it, in this program's or another's monitor,
//   - for others in their program's memory (Request.Memory), at the end of each run.

// memories are those of the containers of this program, by the first endpoint of their run.
var memories struct {
	mu sync.Mutex
	of map[string]*sync.Map
}

func (n *Networks) join(ctx context.Context, ns *Namespace) (*Connection, error) {
	host := n.Endpoints[0].Network.config()
	base, err := host.base(ctx, ns)
	if err != nil {
		return nil, &Error{Op: "join networks", Err: err, Remedy: "Connect connects any namespace"}
	}
	memory := memoryOf(base.ID)
	for i, e := range n.Endpoints {
		if memory != nil || !isLive(e.Network) {
			continue
		}
		field := fmt.Sprintf("Endpoints[%d].Network", i)
		if _, ok := e.Network.(*Overlay); ok {
			return nil, &Error{Op: "check", Object: field, Err: fmt.Errorf("%w: %w, and the container's later runs are others'", ErrInvalid, ErrPeers), Remedy: "StaticPeers, a Directory; or Connect in each run"}
		}
		return nil, fault(field, "the other end of a Tun is this program's, and the container's later runs are not: Connect in each of them")
	}
	named, err := n.freeInterfaces(ns)
	if err != nil {
		return nil, &Error{Op: "join networks", Err: err}
	}
	return named.joinTo(ctx, ns, joining{base: base, memory: memory})
}

// isLive says that a network is more than data: a later run has to get the same one.
func isLive(n Network) bool {
	switch n := n.(type) {
	case *Tun:
		return true
	case *Overlay:
		return !n.cfg.link.Flood && n.stored() == nil
	}
	return false
}

// memoryOf is Request.Memory of the container whose run began with the endpoint, if that is this program's.
func memoryOf(base string) *sync.Map {
	memories.mu.Lock()
	defer memories.mu.Unlock()
	return memories.of[base]
}

// freeInterfaces is n with a name for each interface.
func (n *Networks) freeInterfaces(ns *Namespace) (*Networks, error) {
	out := &Networks{Endpoints: slices.Clone(n.Endpoints)}
	taken := map[string]bool{}
	for _, e := range out.Endpoints {
		taken[e.Interface] = true
	}
	err := ns.Do(func() error {
		h, err := routeHandle() // package net would keep what it finds here, and take it for the host's
		if err != nil {
			return err
		}
		defer h.Close()
		links, err := h.LinkList()
		for _, l := range links {
			taken[l.Attrs().Name] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range out.Endpoints {
		for k := 0; out.Endpoints[i].Interface == ""; k++ {
			if name := fmt.Sprintf("eth%d", k); !taken[name] {
				taken[name], out.Endpoints[i].Interface = true, name
			}
		}
	}
	return out, nil
}

// joinTo connects the namespace for the run of an endpoint.
func (n *Networks) joinTo(ctx context.Context, ns *Namespace, to joining) (*Connection, error) {
	c := &Connection{nets: n, req: Request{ID: to.base.Container, Hostname: to.base.Hostname}, bare: true, to: &to}
	if err := n.prepare(ctx, c); err != nil {
		return nil, err
	}
	err := c.Attach(ctx, Target{Netns: ns.File()})
	for i, e := range n.Endpoints {
		if err == nil && isLive(e.Network) {
			to.memory.Store(liveKey(c.eps[i].ID), e.Network)
		}
	}
	if err == nil {
		c.passMembers()
		err = c.host.inHost(func() error { return c.handOver(ctx) })
	}
	if err != nil && to.memory != nil && (to.ids == nil || errors.Is(err, errLeft)) { // else the next attempt needs them
		for _, e := range c.eps {
			to.memory.Delete(liveKey(e.ID))
		}
	}
	if errors.Is(err, errLeft) {
		return nil, c.Detach(context.WithoutCancel(ctx))
	}
	if err != nil {
		return nil, errors.Join(err, c.Detach(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// errLeft says that the container has left a network while its run was connected to it again.
var errLeft = errors.New("the container has left the network")

// handOver leaves the connection to who undoes the container's run, and has later runs get it. Until then only this program and its journal undo it: who else did
// would take the record away while devices and rules are made by it.
func (c *Connection) handOver(ctx context.Context) error {
	s, err := reopenStore(ctx, c.rec.StateDir, c.host.StateDir, c.rec.Host)
	if err != nil {
		return err
	}
	defer s.close()
	if err := c.to.runs(s); err != nil {
		return err
	}
	for _, ref := range c.rec.Endpoints {
		if e, err := s.endpoint(ref); err != nil {
			return err
		} else if e == nil {
			return &Error{Op: "join network", Object: ref.Network, Err: fmt.Errorf("%w: the endpoint was removed meanwhile", ErrNotFound)}
		}
	}
	if ok, err := c.to.wanted(); err != nil {
		return err
	} else if !ok {
		return errLeft
	}
	steps, err := c.joinSteps(s)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// joinSteps are the last ones of a join. Whoever is killed between them, the container has joined all of it or nothing, in this run and in later ones: it has as soon as
// the first endpoint is noted, which comes after the others. Until then what is written down of any of them counts for nothing, see [store.settle]. What an earlier run
// had joined is the next one's whatever happens to this one.
func (c *Connection) joinSteps(s *store) ([]func() error, error) {
	base := c.to.base
	before, err := s.settle(base)
	if err != nil {
		return nil, err
	}
	last := 0
	for _, k := range before {
		last = max(last, k.Nth)
	}
	var l []keptEndpoint
	for i := range c.eps {
		k := c.keep(i)
		if k.Nth = last + 1 + i; c.to.ids == nil {
			k.With = c.eps[0].ID
		}
		l = append(l, k)
	}
	steps := []func() error{func() error {
		err := changeKept(base.Kept, func(had []keptEndpoint) []keptEndpoint {
			return append(slices.DeleteFunc(without(had, c.rec.Endpoints), keptEndpoint.begun), l...)
		})
		if err != nil {
			return &Error{Op: "note networks for later runs", Object: base.Kept, Err: err}
		}
		return nil
	}}
	for i := range slices.Backward(l) {
		steps = append(steps, func() error {
			err := s.noteJoined(base.ID, &l[i])
			c.to.over = i == 0 && err == nil
			return err
		})
	}
	settle := func() error {
		_, err := s.settle(base)
		return err
	}
	return append(steps, settle, c.strike), nil
}

// settle finds what the container of an endpoint has joined, and has later runs get that. Where a joiner was killed all of it has been joined if the first of its endpoints is
// noted, and else nothing. What is being left no later run gets.
func (s *store) settle(base *epState) (whole []keptEndpoint, err error) {
	l, err := s.joinedTo(base.ID)
	if err != nil {
		return nil, err
	}
	never := func(k keptEndpoint) bool {
		return k.begun() && !slices.ContainsFunc(l, func(o keptEndpoint) bool { return o.ID == k.With })
	}
	if slices.ContainsFunc(l, func(k keptEndpoint) bool { return k.begun() || k.Left }) {
		err = changeKept(base.Kept, func(had []keptEndpoint) []keptEndpoint {
			had = slices.DeleteFunc(had, func(k keptEndpoint) bool {
				return never(k) || slices.ContainsFunc(l, func(o keptEndpoint) bool { return o.ID == k.ID && o.Left })
			})
			for i := range had {
				had[i].With = ""
			}
			return had
		})
		if err != nil {
			return nil, err
		}
	}
	for _, k := range l {
		if never(k) {
			continue
		}
		if k.begun() {
			k.With = ""
			if err := s.noteJoined(base.ID, &k); err != nil {
				return nil, err
			}
		}
		whole = append(whole, k)
	}
	return whole, nil
}

// settleRun is settle at the end of a run, which may have begun with the endpoint.
func (s *store) settleRun(ref endpointRef) error {
	e, err := s.endpoint(ref)
	if e == nil || err != nil {
		return err
	}
	_, err = s.settle(e)
	return err
}

// own is a record without what is not its connection's: what goes with the container's run, and what a later run has made again.
func (s *store) own(rec *record) (*record, error) {
	if rec.Made == "" || len(rec.Endpoints) == 0 {
		return rec, nil
	}
	own := *rec
	own.Endpoints = nil
	for _, ref := range rec.Endpoints {
		e, err := s.endpoint(ref)
		if err != nil {
			return nil, err
		}
		over, err := s.isOver(ref.ID)
		if err != nil {
			return nil, err
		}
		if e == nil || e.Made == rec.Made && !over {
			own.Endpoints = append(own.Endpoints, ref)
		}
	}
	return &own, nil
}

// isOver says that an endpoint goes with its container's run: it is noted, and so is the first of those that were joined with it.
func (s *store) isOver(id string) (bool, error) {
	path, err := s.joinedFile(id)
	if path == "" || err != nil {
		return false, err
	}
	var k keptEndpoint
	if ok, err := readJSON(path, &k); !ok || err != nil || !k.begun() {
		return ok, err
	}
	first, err := s.joinedFile(k.With)
	return first != "", err
}

// runs fails when the run has ended.
func (to *joining) runs(s *store) error {
	e, err := s.endpoint(endpointRef{to.base.Network, to.base.ID})
	if err == nil && e == nil {
		err = &Error{Op: "join networks", Object: to.base.Container, Err: fmt.Errorf("%w: the container's run has ended", ErrNotFound)}
	}
	return err
}

// wanted says that the container has not left what an earlier run had joined. The caller has the lock.
func (to *joining) wanted() (bool, error) {
	if to.ids == nil {
		return true, nil
	}
	if to.memory != nil {
		if _, ok := to.memory.Load(keptKey(to.ids[0])); ok {
			return true, nil
		}
	}
	l, _, err := readKept(to.base.Kept)
	return slices.ContainsFunc(l, func(k keptEndpoint) bool { return k.ID == to.ids[0] }), err
}

// keep is what the ith endpoint is made of again.
func (c *Connection) keep(i int) keptEndpoint {
	w, e := &c.nets.Endpoints[i], c.eps[i]
	k := keptEndpoint{ID: e.ID, Network: *c.states[i], Interface: e.Interface, Aliases: w.Aliases, Ports: w.Ports, NoDefaultRoute: w.NoDefaultRoute,
		Limits: w.Limits, Egress: w.Egress, Chosen: c.to.chosen || len(w.Network.config().Subnets) == 0 && len(w.Addresses) == 0 && c.to.ids == nil}
	if len(w.MAC) > 0 {
		k.MAC = w.MAC.String()
	}
	if o, ok := w.Network.(*Overlay); ok {
		k.Peers, _ = o.peers.(StaticPeers)
		k.Store = o.stored()
	}
	for _, p := range e.Addresses {
		k.Addresses = append(k.Addresses, p.Addr())
	}
	return k
}

// base finds the endpoint with which a container's run began whose namespace it is. It asks the host's end where the other one is: what is inside is the container's to change.
func (c *BridgeConfig) base(ctx context.Context, ns *Namespace) (found *epState, err error) {
	err = c.inHost(func() error {
		dir, err := stateDir(c.StateDir)
		if err != nil {
			return err
		}
		here, err := cookie()
		if err != nil {
			return err
		}
		s, err := openStore(ctx, dir, here)
		if err != nil {
			return err
		}
		defer s.close()
		found, err = s.begunIn(ns)
		return err
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: the namespace is of no container that began with a network of this package", ErrNotFound)
	}
	return found, err
}

// errFound ends a search.
var errFound = errors.New("found")

// begunIn returns the first of the endpoints with which a run began.
func (s *store) begunIn(ns *Namespace) (*epState, error) {
	h, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	number, err := h.GetNetNsIdByFd(int(ns.File().Fd()))
	if err != nil {
		return nil, fmt.Errorf("number of a network namespace: %w", err)
	}
	key, err := keyOf(ns.File())
	if err != nil {
		return nil, err
	}
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	in := map[string]int{} // the namespace of the other end, by device
	for _, l := range links {
		if l.Type() == "veth" {
			in[l.Attrs().Name] = l.Attrs().NetNsID
		}
	}
	var found *epState
	err = s.eachEndpoint(func(n *netState, e *epState) (err error) {
		is := false
		switch there, ok := in[e.Device]; {
		case e.Added || e.Waiting:
		case n.Kind.ruled():
			is = ok && number >= 0 && there == number
		default:
			is, err = s.isPinned(endpointRef{e.Network, e.ID}, key)
		}
		if is {
			found = e
			return errFound
		}
		return err
	})
	if err != nil && !errors.Is(err, errFound) || found == nil {
		return nil, err
	}
	return s.firstOf(found)
}

// firstOf is the first endpoint of the run that e is of; nil if it has just ended.
func (s *store) firstOf(e *epState) (*epState, error) {
	if e.First == (endpointRef{}) { // made by a program that did not note it
		return e, nil
	}
	return s.endpoint(e.First)
}

// isPinned says that the namespace kept for an endpoint is that one.
func (s *store) isPinned(ref endpointRef, key netnsKey) (bool, error) {
	p, err := s.pinned(ref)
	if p == nil || err != nil {
		return false, err
	}
	defer p.Close()
	k, err := keyOf(p.File())
	return k == key, err
}

func (s *store) joinedDir(base string) string { return filepath.Join(s.dir, "joined", base) }

// noteJoined writes down that an endpoint goes with the run of its container. Its devices and rules are made before.
func (s *store) noteJoined(base string, k *keptEndpoint) error {
	dir := s.joinedDir(base)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, k.ID), k)
}

// joinedFile is where it is noted with which run an endpoint goes; "" for none.
func (s *store) joinedFile(id string) (string, error) {
	l, err := names(filepath.Join(s.dir, "joined"))
	if err != nil {
		return "", err
	}
	for _, base := range l {
		path := filepath.Join(s.joinedDir(base), id)
		if _, err := os.Lstat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// joinedTo are the endpoints that go with the run of an endpoint's container.
func (s *store) joinedTo(base string) (out []keptEndpoint, err error) {
	l, err := names(s.joinedDir(base))
	if err != nil {
		return nil, err
	}
	for _, id := range l {
		var k keptEndpoint
		if ok, err := readJSON(filepath.Join(s.joinedDir(base), id), &k); err != nil {
			return nil, err
		} else if ok {
			out = append(out, k)
		}
	}
	return out, nil
}

// forgetJoined strikes an endpoint out, whichever run it goes with.
func (s *store) forgetJoined(id string) error {
	l, err := names(filepath.Join(s.dir, "joined"))
	if err != nil {
		return err
	}
	for _, base := range l {
		dir := s.joinedDir(base)
		if err := os.Remove(filepath.Join(dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = os.Remove(filepath.Join(dir, unfinished))
		_ = os.Remove(dir) // if it is empty
	}
	_ = os.Remove(filepath.Join(s.dir, "joined"))
	return nil
}

// forget has no later run get the connection again. It holds the lock.
func (c *Connection) forget() error {
	for _, ref := range c.rec.Endpoints {
		if c.to.memory != nil {
			c.to.memory.Delete(keptKey(ref.ID))
			c.to.memory.Delete(liveKey(ref.ID))
		}
	}
	return forgetKept(c.to.base.Kept, c.rec.Endpoints)
}

func forgetKept(kept string, refs []endpointRef) error {
	return changeKept(kept, func(l []keptEndpoint) []keptEndpoint { return without(l, refs) })
}

func without(l []keptEndpoint, refs []endpointRef) []keptEndpoint {
	return slices.DeleteFunc(l, func(k keptEndpoint) bool {
		return slices.ContainsFunc(refs, func(r endpointRef) bool { return r.ID == k.ID })
	})
}

// changeKept changes the file in a container's directory, which may have gone with the container; "" is none.
func changeKept(path string, change func([]keptEndpoint) []keptEndpoint) error {
	if path == "" {
		return nil
	}
	l, there, err := readKept(path)
	if err != nil {
		return err
	}
	was, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if l = change(l); len(l) == 0 {
		if !there {
			return nil
		}
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(l)
	if bytes.Equal(b, was) { // the run ends, or others join, where there is no room to write the same once more
		return err
	}
	if err == nil && (len(l) > maxKept || len(b) > maxKeptBytes) {
		err = fmt.Errorf("%w: %d networks in %d bytes, more than %d in %d", ErrExhausted, len(l), len(b), maxKept, maxKeptBytes)
	}
	if err != nil {
		return err
	}
	// Beside it others write under other names.
	if err = writeWhole(path+unfinished, b); err == nil {
		err = rename(path+unfinished, path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Bounds of a file of kept endpoints.
const (
	maxKeptBytes = 1 << 20
	maxKept      = 100
)

// readKept reads the file in a container's directory; "" is none. A failure of the machine may have left it empty, or without what was written: that is none too.
func readKept(path string) (l []keptEndpoint, there bool, err error) {
	if path == "" {
		return nil, false, nil
	}
	fail := func(err error) ([]keptEndpoint, bool, error) {
		return nil, true, &Error{Op: "read joined networks", Object: path, Err: err, Remedy: "remove the file while the container is stopped"}
	}
	fd, err := openSmall(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fail(cmp.Or(err, fmt.Errorf("%w: it is no regular file", ErrInvalid)))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeptBytes+1))
	switch {
	case err != nil:
		return fail(err)
	case len(b) > maxKeptBytes:
		return fail(fmt.Errorf("%w: it has more than %d bytes", ErrInvalid, maxKeptBytes))
	case len(bytes.Trim(b, "\x00")) == 0:
		return nil, true, nil
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if len(l) > maxKept {
		return fail(fmt.Errorf("%w: %d networks, more than %d", ErrInvalid, len(l), maxKept))
	}
	return l, true, nil
}

// kept are the endpoints that earlier runs had joined, in the order in which they did.
func (c *Connection) kept() (l []keptEndpoint, err error) {
	if l, _, err = readKept(c.req.Kept); err != nil {
		return nil, err
	}
	if c.req.Memory != nil {
		c.req.Memory.Range(func(key, v any) bool {
			if _, ok := key.(keptKey); ok {
				l = append(l, v.(keptEndpoint))
			}
			return true
		})
	}
	l = slices.DeleteFunc(l, keptEndpoint.begun) // its joiner was killed
	for _, k := range l {
		if !validName(k.Network.Name, 63) || !validName(k.ID, 32) {
			return nil, fault("what is kept of joined networks "+c.req.Kept, "endpoint %q of network %q", k.ID, k.Network.Name)
		}
	}
	slices.SortStableFunc(l, func(a, b keptEndpoint) int {
		return cmp.Or(cmp.Compare(a.Nth, b.Nth), cmp.Compare(a.Interface, b.Interface))
	})
	return l, nil
}

// rejoin connects the run to what earlier ones had joined. From then on others may join it.
func (c *Connection) rejoin(ctx context.Context, t Target) error {
	if c.bare || c.waiting {
		return nil
	}
	l, err := c.kept()
	if err != nil {
		return err
	}
	for _, k := range l {
		if err := c.rejoinOne(ctx, &Namespace{t.Netns}, k); err != nil {
			remedy := "Detach of what Join returned has it come back no more"
			if c.req.Kept != "" {
				remedy += "; so does to remove the file " + c.req.Kept + " while the container is stopped, with all others that it has joined"
			}
			return &Error{Op: "connect again to network", Object: k.Network.Name, Err: err, Remedy: remedy}
		}
	}
	if c.req.Memory != nil {
		memories.mu.Lock()
		defer memories.mu.Unlock()
		if memories.of == nil {
			memories.of = map[string]*sync.Map{}
		}
		memories.of[c.eps[0].ID] = c.req.Memory
	}
	return nil
}

func (c *Connection) rejoinOne(ctx context.Context, ns *Namespace, k keptEndpoint) error {
	n := k.Network
	var now netState
	if ok, err := readJSON(filepath.Join(c.stateDir(), "networks", n.Name, "network.json"), &now); err != nil {
		return err
	} else if ok {
		n = now
	}
	again, err := c.again(&n, &k)
	if err != nil {
		return err
	}
	e := Endpoint{Network: again, Interface: k.Interface, Aliases: k.Aliases, Ports: k.Ports, NoDefaultRoute: k.NoDefaultRoute, Limits: k.Limits, Egress: k.Egress}
	for _, a := range k.Addresses {
		if _, ok := n.subnetOf(a); ok && n.Kind != kindDevice {
			e.Addresses = append(e.Addresses, a)
		}
	}
	if k.MAC != "" {
		if e.MAC, err = net.ParseMAC(k.MAC); err != nil {
			return err
		}
	}
	if err := (&Networks{Endpoints: []Endpoint{e}}).joinable(); err != nil {
		return err
	}
	to := joining{base: c.eps[0], ids: []string{k.ID}, memory: c.req.Memory, chosen: k.Chosen}
	_, err = (&Networks{Endpoints: []Endpoint{e}}).joinTo(ctx, ns, to)
	if errors.Is(err, ErrAddressTaken) {
		e.Addresses = nil
		_, err = (&Networks{Endpoints: []Endpoint{e}}).joinTo(ctx, ns, to)
	}
	if k.Chosen && (errors.Is(err, ErrOverlap) || errors.Is(err, ErrConflict)) { // others have the subnets by now, and nobody has wished for these
		n.Subnets, n.Ranges, n.Gateways, e.Addresses = nil, nil, nil, nil
		if e.Network, err = c.again(&n, &k); err == nil {
			_, err = (&Networks{Endpoints: []Endpoint{e}}).joinTo(ctx, ns, to)
		}
	}
	return err
}

// again is the network of what is kept: the one that was joined, where it is more than data, or such a one.
func (c *Connection) again(n *netState, k *keptEndpoint) (Network, error) {
	if c.req.Memory != nil {
		if w, ok := c.req.Memory.Load(liveKey(k.ID)); ok {
			return w.(Network), nil
		}
	}
	return n.again(c.host, k)
}

// again is such a network, of those that Join takes and are data alone, for what is kept.
func (n *netState) again(host *BridgeConfig, k *keptEndpoint) (Network, error) {
	var gateways []netip.Addr
	for _, g := range n.Gateways {
		if g.IsValid() {
			gateways = append(gateways, g)
		}
	}
	switch {
	case n.Kind == kindBridge && n.Mode == 0:
		return NewBridge(BridgeConfig{Name: n.Name, Subnets: n.Subnets, Ranges: n.Ranges, Gateways: gateways, Bridge: n.Bridge, MTU: n.MTU, Internal: n.Internal, HostAccess: n.HostAccess,
			NoNAT: n.NoNAT, Parent: n.Parent, VLAN: n.VLAN, Host: host.Host, StateDir: host.StateDir, Journal: host.Journal})
	case n.Kind == kindRouted && n.Mode == 0:
		return NewRouted(RoutedConfig{Name: n.Name, Subnets: n.Subnets, Ranges: n.Ranges, Gateways: gateways, MTU: n.MTU, Internal: n.Internal, HostAccess: n.HostAccess,
			NoNAT: n.NoNAT, Host: host.Host, StateDir: host.StateDir, Journal: host.Journal})
	case n.Kind == kindOverlay && n.Mode == 0:
		peers, err := n.peersOf(k)
		if err != nil {
			return nil, err
		}
		return NewOverlay(OverlayConfig{Name: n.Name, Bridge: n.Bridge, Internal: n.Internal, HostAccess: n.HostAccess, NoNAT: n.NoNAT, Subnets: n.Subnets, Ranges: n.Ranges,
			Gateways: gateways, VNI: n.VNI, Port: n.Port, Local: n.Local, MTU: n.MTU, Peers: peers, Host: host.Host, StateDir: host.StateDir, Journal: host.Journal})
	case n.Kind == kindDevice && n.Mode == 0:
		d := DeviceConfig{Name: n.Name, Device: n.Parent, Gateways: gateways, Host: host.Host, StateDir: host.StateDir, Journal: host.Journal}
		for _, a := range k.Addresses {
			if i, ok := n.subnetOf(a); ok {
				d.Addresses = append(d.Addresses, netip.PrefixFrom(a, n.Subnets[i].Bits()))
			}
		}
		return NewDevice(d)
	case n.Mode.kind() == n.Kind:
		return NewLAN(LANConfig{Name: n.Name, Mode: n.Mode, Parent: n.Parent, VLAN: n.VLAN, Subnets: n.Subnets, Ranges: n.Ranges, Gateways: gateways, MTU: n.MTU,
			Host: host.Host, StateDir: host.StateDir, Journal: host.Journal})
	}
	return nil, fault("network "+n.Name, "its kind %q cannot be joined", n.Kind)
}

// remember takes what the run has joined to where the next one finds it. It holds the lock.
func (c *Connection) remember(s *store) error {
	memory := c.req.Memory
	if memory == nil || len(c.eps) == 0 {
		return nil
	}
	memories.mu.Lock()
	defer memories.mu.Unlock()
	if memories.of[c.eps[0].ID] != memory { // it did not come to its end, and has changed nothing
		return nil
	}
	var now []keptEndpoint
	for _, e := range c.eps {
		l, err := s.settle(e)
		if err != nil {
			return err
		}
		now = append(now, slices.DeleteFunc(l, func(k keptEndpoint) bool { return k.Left })...)
	}
	delete(memories.of, c.eps[0].ID)
	memory.Range(func(key, _ any) bool {
		_, kept := key.(keptKey)
		id, live := key.(liveKey)
		if kept || live && !slices.ContainsFunc(now, func(k keptEndpoint) bool { return k.ID == string(id) }) {
			memory.Delete(key)
		}
		return true
	})
	for _, k := range now {
		memory.Store(keptKey(k.ID), k)
	}
	return nil
}

func (n *Networks) leave(ctx context.Context, ns *Namespace) error {
	host := n.Endpoints[0].Network.config()
	base, err := host.base(ctx, ns)
	if err != nil {
		return &Error{Op: "leave networks", Err: err}
	}
	var left []keptEndpoint
	var missing []error
	err = host.inHost(func() error {
		rec := record{}
		var err error
		if rec.Host, err = cookie(); err != nil {
			return err
		}
		if rec.StateDir, err = stateDir(host.StateDir); err != nil {
			return err
		}
		if left, err = n.joined(ctx, &rec, base); err != nil {
			return err
		}
		for _, e := range n.Endpoints {
			if !slices.ContainsFunc(left, func(k keptEndpoint) bool { return k.Network.Name == e.Network.Name() }) {
				missing = append(missing, &Error{Op: "leave network", Object: e.Network.Name(), Err: fmt.Errorf("%w: container %q has not joined it", ErrNotFound, base.Container)})
			}
		}
		if len(rec.Endpoints) == 0 {
			return nil
		}
		return undoJoined(ctx, &rec, func() error { return forgetKept(base.Kept, rec.Endpoints) })
	})
	if err == nil { // not in the host's namespace: Peers are the embedder's
		err = host.withdraw(ctx, left)
	}
	return errors.Join(append(missing, err)...)
}

// undoJoined undoes what goes with a run, and calls forget when it has the lock. What does not go with one is not there, or a run that begins connects to it just now:
// its program takes it away when it finds it forgotten.
func undoJoined(ctx context.Context, rec *record, forget func() error) error {
	if ok, err := rec.isHere(); err != nil {
		return err
	} else if !ok {
		return forget()
	}
	there, err := rec.leaving(ctx, forget)
	if err != nil {
		return err
	}
	if err := removeDevices(there); err != nil { // nobody else waits for the kernel
		return err
	}
	s, err := openStore(ctx, rec.StateDir, rec.Host)
	if err != nil {
		return err
	}
	defer s.close()
	return undoLocked(s, there)
}

// leaving begins to undo what goes with a run, and returns that. Who is killed then leaves it to the end of the run. What cannot be forgotten, for want of room say, is not
// begun to be left: the run could not end either.
func (r *record) leaving(ctx context.Context, forget func() error) (*record, error) {
	s, err := openStore(ctx, r.StateDir, r.Host)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := forget(); err != nil {
		return nil, err
	}
	there := *r
	there.Endpoints = nil
	for _, ref := range r.Endpoints {
		path, err := s.joinedFile(ref.ID)
		if err != nil {
			return nil, err
		}
		var k keptEndpoint
		if ok, err := readJSON(path, &k); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		k.Left = true
		if err := writeJSON(path, &k); err != nil {
			return nil, err
		}
		there.Endpoints = append(there.Endpoints, ref)
	}
	return &there, nil
}

// joined adds the endpoints on the networks that go with a run to the record, and returns them.
func (n *Networks) joined(ctx context.Context, rec *record, base *epState) (left []keptEndpoint, err error) {
	s, err := openStore(ctx, rec.StateDir, rec.Host)
	if err != nil {
		return nil, err
	}
	defer s.close()
	l, err := s.settle(base)
	for _, k := range l {
		if slices.ContainsFunc(n.Endpoints, func(e Endpoint) bool { return e.Network.Name() == k.Network.Name }) {
			rec.Endpoints, left = append(rec.Endpoints, endpointRef{k.Network.Name, k.ID}), append(left, k)
		}
	}
	return left, err
}
