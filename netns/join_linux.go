package netns

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
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
	named, err := n.freeInterfaces(ns)
	if err != nil {
		return nil, &Error{Op: "join networks", Err: err}
	}
	return named.joinTo(ctx, ns, joining{base: base})
}

// freeInterfaces is n with a name for each interface.
func (n *Networks) freeInterfaces(ns *Namespace) (*Networks, error) {
	out := &Networks{Endpoints: slices.Clone(n.Endpoints)}
	taken := map[string]bool{}
	for _, e := range out.Endpoints {
		taken[e.Interface] = true
	}
	err := ns.Do(func() error {
		l, err := net.Interfaces()
		for _, i := range l {
			taken[i.Name] = true
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
	memories.mu.Lock()
	to.memory = memories.of[to.base.ID]
	memories.mu.Unlock()
	c := &Connection{nets: n, req: Request{ID: to.base.Container, Hostname: to.base.Hostname}, bare: true, to: &to}
	if err := n.prepare(ctx, c); err != nil {
		return nil, err
	}
	err := c.Attach(ctx, Target{Netns: ns.File()})
	if err == nil {
		err = c.host.inHost(func() error { return c.handOver(ctx) })
	}
	if err != nil {
		return nil, errors.Join(err, c.Detach(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// handOver leaves the connection to who undoes the container's run, and has later runs get it.
func (c *Connection) handOver(ctx context.Context) error {
	s, err := reopenStore(ctx, c.rec.StateDir, c.host.StateDir, c.rec.Host)
	if err != nil {
		return err
	}
	defer s.close()
	if err := c.to.runs(s); err != nil {
		return err
	}
	var l []keptEndpoint
	for i := range c.eps {
		l = append(l, c.keep(i))
	}
	err = changeKept(c.to.base.Kept, func(had []keptEndpoint) []keptEndpoint {
		return append(without(had, c.rec.Endpoints), l...)
	})
	if err != nil {
		return &Error{Op: "note networks for later runs", Object: c.to.base.Kept, Err: err}
	}
	c.to.over = true
	return c.strike()
}

// runs fails when the run has ended.
func (to *joining) runs(s *store) error {
	e, err := s.endpoint(endpointRef{to.base.Network, to.base.ID})
	if err == nil && e == nil {
		err = &Error{Op: "join networks", Object: to.base.Container, Err: fmt.Errorf("%w: the container's run has ended", ErrNotFound)}
	}
	return err
}

// keep is what the ith endpoint is made of again.
func (c *Connection) keep(i int) keptEndpoint {
	w, e := &c.nets.Endpoints[i], c.eps[i]
	k := keptEndpoint{ID: e.ID, Network: *c.states[i], Interface: e.Interface, Aliases: w.Aliases, Ports: w.Ports, NoDefaultRoute: w.NoDefaultRoute,
		Limits: w.Limits, Egress: w.Egress}
	if len(w.MAC) > 0 {
		k.MAC = w.MAC.String()
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
	nets, err := s.networks()
	if err != nil {
		return nil, err
	}
	for _, n := range nets {
		l, err := s.endpoints(n.Name)
		if err != nil {
			return nil, err
		}
		for _, e := range l {
			if e.Added || e.Waiting {
				continue
			}
			if n.Kind.ruled() {
				if there, ok := in[e.Device]; ok && number >= 0 && there == number {
					return e, nil
				}
				continue
			}
			if ok, err := s.isPinned(endpointRef{e.Network, e.ID}, key); ok || err != nil {
				return e, err
			}
		}
	}
	return nil, nil
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

// noteJoined writes down that the ith endpoint goes with the run of its container. The endpoint is recorded before.
func (c *Connection) noteJoined(s *store, i int) error {
	dir := s.joinedDir(c.to.base.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, c.eps[i].ID), c.keep(i))
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

// forget has no later run get the connection again, unless it has come to nothing. It holds the lock.
func (c *Connection) forget(*store) error {
	if !c.to.over {
		return nil
	}
	for _, ref := range c.rec.Endpoints {
		if c.to.memory != nil {
			c.to.memory.Delete(keptKey(ref.ID))
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
	var l []keptEndpoint
	there, err := readJSON(path, &l)
	if err != nil {
		return err
	}
	if l = change(l); len(l) == 0 {
		if !there {
			return nil
		}
		return os.Remove(path)
	}
	b, err := json.Marshal(l)
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

// kept are the endpoints that earlier runs had joined.
func (c *Connection) kept() (l []keptEndpoint, err error) {
	if c.req.Kept != "" {
		if _, err := readJSON(c.req.Kept, &l); err != nil {
			return nil, err
		}
	}
	if c.req.Memory != nil {
		c.req.Memory.Range(func(key, v any) bool {
			if _, ok := key.(keptKey); ok {
				l = append(l, v.(keptEndpoint))
			}
			return true
		})
	}
	for _, k := range l {
		if !validName(k.Network.Name, 63) || !validName(k.ID, 32) {
			return nil, fault("what is kept of joined networks", "endpoint %q of network %q", k.ID, k.Network.Name)
		}
	}
	slices.SortFunc(l, func(a, b keptEndpoint) int { return cmp.Compare(a.Interface, b.Interface) })
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
			return &Error{Op: "connect again to network", Object: k.Network.Name, Err: err, Remedy: "Networks.Leave while the container runs, or Detach of what Join returned, has it come back no more"}
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
	if _, err := readJSON(filepath.Join(c.stateDir(), "networks", n.Name, "network.json"), &n); err != nil { // as it is by now
		return err
	}
	e := Endpoint{Network: &restored{n.wish(c.host)}, Interface: k.Interface, Aliases: k.Aliases, Ports: k.Ports, NoDefaultRoute: k.NoDefaultRoute, Limits: k.Limits, Egress: k.Egress}
	for _, a := range k.Addresses {
		if _, ok := n.subnetOf(a); ok {
			e.Addresses = append(e.Addresses, a)
		}
	}
	if k.MAC != "" {
		var err error
		if e.MAC, err = net.ParseMAC(k.MAC); err != nil {
			return err
		}
	}
	to := joining{base: c.eps[0], ids: []string{k.ID}}
	_, err := (&Networks{Endpoints: []Endpoint{e}}).joinTo(ctx, ns, to)
	if errors.Is(err, ErrAddressTaken) {
		e.Addresses = nil
		_, err = (&Networks{Endpoints: []Endpoint{e}}).joinTo(ctx, ns, to)
	}
	return err
}

// wish is what such a network is asked for by.
func (n *netState) wish(host *BridgeConfig) BridgeConfig {
	c := BridgeConfig{Name: n.Name, Subnets: n.Subnets, Ranges: n.Ranges, Bridge: n.Bridge, MTU: n.MTU, Internal: n.Internal, HostAccess: n.HostAccess, NoNAT: n.NoNAT,
		Host: host.Host, StateDir: host.StateDir, Journal: host.Journal, link: n.linkSpec}
	for _, g := range n.Gateways {
		if g.IsValid() {
			c.Gateways = append(c.Gateways, g)
		}
	}
	return c
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
		l, err := s.joinedTo(e.ID)
		if err != nil {
			return err
		}
		now = append(now, l...)
	}
	delete(memories.of, c.eps[0].ID)
	memory.Range(func(key, _ any) bool {
		if _, ok := key.(keptKey); ok {
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
	return host.inHost(func() error {
		rec := record{}
		var err error
		if rec.Host, err = cookie(); err != nil {
			return err
		}
		if rec.StateDir, err = stateDir(host.StateDir); err != nil {
			return err
		}
		left, err := n.joined(ctx, &rec, base.ID)
		if err != nil {
			return err
		}
		var missing []error
		for _, e := range n.Endpoints {
			if !slices.Contains(left, e.Network.Name()) {
				missing = append(missing, &Error{Op: "leave network", Object: e.Network.Name(), Err: fmt.Errorf("%w: container %q has not joined it", ErrNotFound, base.Container)})
			}
		}
		if len(rec.Endpoints) > 0 {
			missing = append(missing, undo(ctx, &rec, func(*store) error { return forgetKept(base.Kept, rec.Endpoints) }))
		}
		return errors.Join(missing...)
	})
}

// joined adds the endpoints on the networks that go with a run to the record, and returns the names of their networks.
func (n *Networks) joined(ctx context.Context, rec *record, base string) (left []string, err error) {
	s, err := openStore(ctx, rec.StateDir, rec.Host)
	if err != nil {
		return nil, err
	}
	defer s.close()
	l, err := s.joinedTo(base)
	for _, k := range l {
		if slices.ContainsFunc(n.Endpoints, func(e Endpoint) bool { return e.Network.Name() == k.Network.Name }) {
			rec.Endpoints, left = append(rec.Endpoints, endpointRef{k.Network.Name, k.ID}), append(left, k.Network.Name)
		}
	}
	return left, err
}

var _ Network = (*restored)(nil)
