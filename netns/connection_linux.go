package netns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
)

// prepare reserves what the container needs.
func (n *Networks) prepare(ctx context.Context, c *Connection) error {
	if err := n.Validate(); err != nil {
		return err
	}
	c.host = n.Endpoints[0].Network.config()
	return c.host.inHost(func() error { return c.reserve(ctx) })
}

// reserve runs in the host's namespace. It records what it is about to reserve before.
func (c *Connection) reserve(ctx context.Context) error {
	var err error
	if c.rec.Host, err = cookie(); err != nil {
		return &Error{Op: "identify the host's network namespace", Err: err, Remedy: "needs Linux 5.14"}
	}
	if c.rec.StateDir, err = stateDir(c.host.StateDir); err != nil {
		return &Error{Op: "open state directory", Object: c.host.StateDir, Err: err}
	}
	if slices.ContainsFunc(c.nets.Endpoints, func(e Endpoint) bool { return e.Network.config().link.Kind.ruled() }) {
		if err := c.checkRules(); err != nil {
			return err
		}
	}
	for i := range c.nets.Endpoints {
		e := &c.nets.Endpoints[i]
		if err := errors.Join(checkLimits(&e.Limits), checkEgress(e.Egress)); err != nil {
			return err
		}
	}
	if c.host.Journal == nil {
		recoverFirst(ctx)
	}
	for i, e := range c.nets.Endpoints {
		id := newID()
		if c.to != nil && c.to.ids != nil {
			id = c.to.ids[i]
		}
		c.rec.Endpoints = append(c.rec.Endpoints, endpointRef{e.Network.Name(), id})
	}
	if c.to != nil {
		c.rec.Made = newID()
	}
	if err := c.journal(); err != nil {
		return err
	}
	if err := c.reserveLocked(ctx); err != nil {
		return errors.Join(err, c.Detach(context.WithoutCancel(ctx)))
	}
	return nil
}

func newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// stateDir is where the networks of the host namespace are recorded.
func (c *Connection) stateDir() string {
	return hostDir(c.rec.StateDir, c.rec.Host)
}

func hostDir(base string, cookie uint64) string {
	return filepath.Join(base, strconv.FormatUint(cookie, 10))
}

func (c *Connection) tableName() string { return tableName(c.rec.StateDir, c.host.StateDir == "") }

func (c *Connection) owned() ownedKey { return ownedKey{c.rec.Host, c.tableName()} }

// checkRules finds out whether nftables can be used, unless this program uses it already.
func (c *Connection) checkRules() error {
	if usesRules(c.owned()) {
		return nil
	}
	r, err := openRules(c.tableName())
	if err == nil {
		defer r.leave()
		_, err = r.exists()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return &Error{Op: "use nftables", Err: privileged(err), Remedy: "a bridge network needs CAP_NET_ADMIN over the host's network namespace; Pasta does without"}
	}
	for _, scarce := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS} {
		if errors.Is(err, scarce) { // it cannot be told
			return &Error{Op: "use nftables", Err: err}
		}
	}
	return &Error{Op: "use nftables", Err: fmt.Errorf("%w: %w", ErrUnsupported, err), Remedy: "needs a kernel with nf_tables (CONFIG_NF_TABLES_INET)"}
}

func (c *Connection) journal() error {
	data, err := c.rec.encode()
	if err == nil {
		c.entry, err = addEntry(c.host.Journal, data)
	}
	return err
}

var recovered sync.Once

// recoverFirst undoes what killed programs of this user left, once for this program: it could hold the port or the address that
// is wanted. What cannot be undone stays recorded, and is not this connection's fault.
func recoverFirst(ctx context.Context) {
	recovered.Do(func() {
		dir, err := journal.Dir()
		if err != nil {
			return
		}
		defer dir.Close()
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		undoHere := func(ctx context.Context, version int, data []byte) error {
			r, err := decodeRecord(version, data)
			if err == nil && r.Pasta != "" {
				return endPasta(r)
			}
			if err == nil {
				err = undo(ctx, r, nil)
			}
			return err
		}
		_, _ = journal.Recover(ctx, dir, map[string]journal.Undoer{ownerName: journal.UndoFunc(undoHere)})
	})
}

// addEntry records what may have to be undone.
func addEntry(j Journal, data []byte) (uint64, error) {
	if j == nil {
		d, err := journal.Default()
		if err != nil {
			return 0, &Error{Op: "open journal", Err: err}
		}
		j = d
	}
	return j.Add(ownerName, recordVersion, data)
}

// strike takes the record back, once nothing is left to undo.
func (c *Connection) strike() error {
	id := c.entry
	c.entry = 0
	return strikeEntry(c.host.Journal, id)
}

func strikeEntry(j Journal, id uint64) error {
	if id == 0 {
		return nil
	}
	if j == nil {
		d, err := journal.Default()
		if err != nil {
			return err
		}
		j = d
	}
	return j.Done(id)
}

func (c *Connection) reserveLocked(ctx context.Context) error {
	s, err := reopenStore(ctx, c.rec.StateDir, c.host.StateDir, c.rec.Host)
	if err != nil {
		return err
	}
	defer s.close()
	if c.to != nil {
		if err := c.to.runs(s); err != nil {
			return err
		}
	}
	for i := range c.nets.Endpoints {
		if err := c.reserveEndpoint(s, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *Connection) reserveEndpoint(s *store, i int) error {
	w := &c.nets.Endpoints[i]
	n, err := w.Network.config().define(s)
	if err != nil {
		return err
	}
	id := c.rec.Endpoints[i].ID
	e := &epState{ID: id, Network: n.Name, Container: c.req.ID, Hostname: c.req.Hostname, Kept: c.req.Kept, Added: c.bare, Made: c.rec.Made, Device: "cs" + id, Interface: c.nets.device(i),
		MAC: w.MAC.String(), Limits: w.Limits, Egress: w.Egress}
	if !c.bare {
		e.First = c.rec.Endpoints[0]
	}
	if n.Kind == kindDevice {
		if e.Addresses, err = w.Network.config().deviceAddresses(); err != nil {
			return err
		}
	} else if e.Addresses, err = n.lease(s, id, w.Addresses); err != nil {
		return err
	}
	if n.Kind == kindRouted { // no neighbours
		for j, p := range e.Addresses {
			e.Addresses[j] = whole(p.Addr())
		}
	}
	e.Waiting, e.Names = c.waiting, namesOf(append([]string{c.req.Hostname, c.req.ID}, w.Aliases...))
	if len(w.MAC) == 0 && n.givenMAC() {
		if e.MAC = randomMAC().String(); len(e.Addresses) > 0 && e.Addresses[0].Addr().Is4() {
			e.MAC = macOf(e.Addresses[0].Addr()).String()
		}
	}
	for _, p := range w.Ports {
		for _, one := range p.each() {
			if err := c.reservePort(s, e, one); err != nil {
				return err
			}
		}
	}
	if err := s.saveEndpoint(e); err != nil {
		return err
	}
	c.eps, c.states = append(c.eps, e), append(c.states, n)
	return nil
}

// namesOf are the names of a host among l, each once.
func namesOf(l []string) (out []string) {
	for _, name := range l {
		if name = strings.ToLower(name); validHost(name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (c *Connection) reservePort(s *store, e *epState, p Port) error {
	r, err := reserve(p)
	if err != nil {
		return err
	}
	c.reserved = append(c.reserved, r)
	other, err := s.takePort(r.port, e.ID)
	if err == nil && other != "" && other != e.ID {
		err = &Error{Op: "publish port", Object: r.port.String(), Err: fmt.Errorf("%w: by endpoint %s: %w", ErrPortTaken, other, unix.EADDRINUSE),
			Remedy: "choose another port of the host, or none; what a killed program left is undone by caisson.Recover with netns.Owner"}
	}
	e.Ports = append(e.Ports, r.port)
	return err
}

// Record is what another program needs to undo the connection; see caisson.DurableAttachment. From then on its keeper is
// responsible for it, and not the journal.
func (c *Connection) Record() (owner string, version int, data []byte) {
	c.durable = true
	data, _ = c.rec.encode()
	return ownerName, recordVersion, data
}

// Attach makes the devices, and the rules of the host. When ctx ends meanwhile, what was made is left to Detach.
func (c *Connection) Attach(ctx context.Context, t Target) error {
	if c.durable {
		if c.unattended() && slices.ContainsFunc(c.nets.Endpoints, func(e Endpoint) bool { return e.Egress.named() }) {
			return &Error{Op: "enforce an egress policy", Err: fmt.Errorf("%w: the container is detached, and no server of names outlives this program", ErrInvalid),
				Remedy: "give it a monitor (caisson.WithMonitor), or addresses instead of names"}
		}
		// It stands in the container's own record now.
		if err := c.strike(); err != nil {
			return err
		}
	}
	err := c.host.inHost(func() error {
		if err := c.attachHost(ctx); err != nil {
			return err
		}
		c.look()
		for i := range c.eps {
			if err := c.attachEndpoint(ctx, i, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.joinOverlays(ctx); err != nil {
		return err
	}
	if err := c.serve(ctx, t); err != nil {
		return err
	}
	return c.rejoin(ctx, t)
}

// attachHost makes what the host needs, under the lock.
func (c *Connection) attachHost(ctx context.Context) error {
	s, err := reopenStore(ctx, c.rec.StateDir, c.host.StateDir, c.rec.Host)
	if err != nil {
		return err
	}
	defer s.close()
	t, err := openTalk()
	if err != nil {
		return err
	}
	defer t.close()
	var late lateHandle
	defer late.close()
	ruled := false
	c.bridges = nil
	for i, n := range c.states {
		if n.Kind.ruled() {
			ruled = true
			if err := ensureForwarding(s, n, c.owned()); err != nil {
				return err
			}
		}
		c.bridges = append(c.bridges, bridgePort{})
		if n.Kind.bridged() {
			if c.bridges[i], err = ensureBridge(t, &late, n); err != nil {
				return &Error{Op: "make bridge", Object: n.Bridge, Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "Pasta does without")}
			}
		}
		if n.carrierDevice() == "" && n.tunnel() == "" && n.sub() == "" {
			continue
		}
		h, err := late.open()
		if err != nil {
			return err
		}
		if err := c.ensureCarrier(h, i); err != nil {
			return &Error{Op: "make encryption", Object: n.carrierDevice(), Err: privileged(err)}
		}
		if err := ensureVXLAN(h, n); err != nil {
			return &Error{Op: "make tunnels", Object: n.tunnel(), Err: privileged(err), Remedy: "another VXLAN device of the host may have the number and port"}
		}
		if err := ensureSub(h, n); err != nil {
			return &Error{Op: "make VLAN", Object: vlanName(n.Parent, n.VLAN), Err: privileged(err), Remedy: lanRemedy(err)}
		}
	}
	if !ruled {
		return nil
	}
	if err := c.addRules(s); err != nil {
		return &Error{Op: "add rules", Object: "table inet " + c.tableName(), Err: privileged(err)}
	}
	if err := c.addGuards(s); err != nil {
		return &Error{Op: "add egress policy", Object: "table bridge " + c.tableName(), Err: privileged(err)}
	}
	return nil
}

// addRules adds the elements of the connection, or makes the table if it is not there, or was emptied by others. Ports of what ends with this
// program are published by its own table, others are noted, and published by the table of all.
func (c *Connection) addRules(s *store) error {
	if !c.durable && c.to == nil {
		err := c.addOwned(s)
		if !errors.Is(err, unix.E2BIG) { // the kernel has no room for chains of one more program: in the table of all then
			return err
		}
	}
	for _, e := range c.eps {
		if len(e.Ports) == 0 {
			continue
		}
		e.Shared = true
		if err := s.saveEndpoint(e); err != nil {
			return err
		}
	}
	r, err := openRules(c.tableName())
	if err != nil {
		return err
	}
	defer r.leave()
	if err := c.elements(r); err == nil {
		if err = r.flush(); err == nil {
			return nil
		}
	}
	if r, err = openRules(c.tableName()); err != nil { // answers may be left of the other one
		return err
	}
	defer r.leave()
	return rebuild(r, s)
}

// elements adds those of the table of all to what is sent next.
func (c *Connection) elements(r *rules) error {
	var faults []error
	for i, n := range c.states {
		if n.Kind.ruled() {
			faults = append(faults, r.network(n, r.conn.SetAddElements), r.pair(n, c.eps[i], r.conn.SetAddElements), r.shared(c.eps[i], r.conn.SetAddElements))
		}
	}
	return errors.Join(faults...)
}

// rebuild makes the table from what is recorded.
func rebuild(r *rules, s *store) error {
	nets, err := s.networks()
	if err != nil {
		return err
	}
	var eps []*epState
	nets = slices.DeleteFunc(nets, func(n *netState) bool { return !n.Kind.ruled() })
	for _, n := range nets {
		l, err := s.endpoints(n.Name)
		if err != nil {
			return err
		}
		eps = append(eps, l...)
	}
	if err := r.quiet(); err != nil { // first: where the table of all is, that of reports has been made, whoever was killed meanwhile
		return err
	}
	return r.build(nets, eps)
}

// attachEndpoint makes the devices of an endpoint.
func (c *Connection) attachEndpoint(ctx context.Context, i int, t Target) error {
	e, n := c.eps[i], c.states[i]
	fail := func(err error) error {
		op := &Error{Op: "connect to network", Object: n.Name, Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "run as root")}
		switch {
		case errors.Is(err, unix.EXFULL):
			op.Err, op.Remedy = fmt.Errorf("%w: the bridge has 1023 ports, the kernel's limit (BR_MAX_PORTS): %w", ErrExhausted, err), "use a second network"
		case !n.Kind.bridged() && op.Remedy == "" && lanRemedy(err) != "":
			if op.Remedy = lanRemedy(err); errors.Is(err, unix.EEXIST) {
				op.Err = fmt.Errorf("%w: %w", ErrExists, err)
			}
		case errors.Is(err, unix.EEXIST):
			op.Err, op.Remedy = fmt.Errorf("%w: interface %s in the container: %w", ErrExists, e.Interface, err), "give the endpoint another Interface"
		}
		return op
	}
	if n.Kind.bridged() {
		if err := c.attachBridged(i, t); err != nil {
			return fail(err)
		}
		return nil
	}
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	if n.Kind.inside() {
		if err := c.attachInside(ctx, h, i, t); err != nil {
			return fail(err)
		}
		return nil
	}
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return fail(err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: e.Device, MTU: n.MTU, TxQLen: -1},
		PeerName: e.Interface, PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(int(t.Netns.Fd())), PeerMTU: uint32(n.MTU), PeerTxQLen: -1}
	if err := h.LinkAdd(veth); err != nil {
		return fail(err)
	}
	if e.Limits.any() {
		link, err := h.LinkByName(e.Device)
		if err == nil {
			err = applyLimits(h, c.tableName(), e, link.Attrs().Index)
		}
		if err != nil {
			return fail(err)
		}
	}
	if err := h.LinkSetUp(veth); err != nil {
		return fail(err)
	}
	if err := routeHost(h, n, e); err != nil {
		return fail(err)
	}
	if err := (&Namespace{t.Netns}).Do(func() error { return c.configureInside(i) }); err != nil {
		return fail(err)
	}
	return settle(h, e.Device)
}

// configureInside gives the container's end its addresses and routes. It runs in the container's namespace.
func (c *Connection) configureInside(i int) error {
	e, n := c.eps[i], c.states[i]
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.Interface)
	if err != nil {
		return err
	}
	if len(n.Subnets) > 0 { // else what runs inside decides
		if err := linkSysctls(setInside, e.Interface, n.hasIPv6()); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	if n.Kind == kindDevice && len(n.Subnets) == 0 {
		if err := e.Saved.configure(h, link, false, false); err != nil {
			return err
		}
	}
	for _, p := range e.Addresses {
		if err := addAddress(h, link, p); err != nil {
			return err
		}
	}
	for j, g := range n.Gateways {
		if n.Kind == kindRouted {
			if err := routeGateway(h, link, g); err != nil {
				return err
			}
		}
		if !n.leadsOut(j) || !c.defaultRoute(i, n.Subnets[j].Addr().Is4()) {
			continue
		}
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: g.AsSlice(), Dst: defaultDst(n.Subnets[j].Addr())}
		if !g.IsValid() {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := h.RouteAdd(r); err != nil {
			if errors.Is(err, unix.EEXIST) && c.bare {
				continue // a running container keeps the one it has
			}
			return fmt.Errorf("default route by %v of %v: %w", g, n.Subnets[j], err)
		}
	}
	if err := settle(h, e.Interface); err != nil {
		return err
	}
	for _, p := range e.Addresses {
		if !p.Addr().Is6() {
			continue
		}
		if !p.Addr().IsLinkLocalUnicast() {
			awaitLocal(h, p.Addr())
		}
		if !n.Kind.bridged() {
			awaitJoined(link, p.Addr())
		}
	}
	return nil
}

func defaultDst(g netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, g.BitLen()/8), Mask: net.CIDRMask(0, g.BitLen())}
}

// defaultRoute says whether the ith endpoint is the way to the world in a family: the first that can be.
func (c *Connection) defaultRoute(i int, is4 bool) bool {
	for j, n := range c.states {
		if n.Internal || c.nets.Endpoints[j].NoDefaultRoute || !n.leadsOutFor(is4) {
			continue
		}
		return i == j
	}
	return false
}

// Detach takes the devices and rules away and gives addresses and ports back. With the last container of a network its bridge
// goes, and with the last network the table of rules and the changed settings of the host.
func (c *Connection) Detach(ctx context.Context) error {
	var faults []error
	for _, s := range c.services {
		faults = append(faults, s.Close())
	}
	c.services = nil
	for _, r := range c.reserved {
		faults = append(faults, r.Close())
	}
	c.reserved = nil
	err := c.host.inHost(func() error {
		if c.to != nil && c.to.over {
			return undoJoined(ctx, &c.rec, c.forget)
		}
		return undo(ctx, &c.rec, func(s *store) error {
			l, err := c.joinedByOthers(s)
			c.untold, faults = append(c.untold, l...), append(faults, err)
			return c.remember(s)
		})
	})
	if err == nil {
		err = c.strike()
		c.untold = append(c.untold, c.closeMembers()...) // not before: who joins meanwhile fails from now on
		told := c.announceOverlays(ctx, c.untold...)
		if told == nil {
			c.untold = nil
		}
		err = errors.Join(err, told)
	}
	return errors.Join(append(faults, err)...)
}

// undo undoes what was recorded, however much of it there is, and what the container has joined. It runs in the host's namespace, and calls first, if that
// is not nil, when it has the lock.
func undo(ctx context.Context, rec *record, first func(*store) error) error {
	if ok, err := rec.isHere(); !ok || err != nil {
		return err
	}
	// The kernel takes its time to remove devices: nobody else waits for that. What a killed program left is looked for again below. What was made by Join may be
	// another run's by now, which only the lock tells.
	if rec.Made == "" {
		if err := removeDevices(rec); err != nil {
			return err
		}
	}
	s, err := openStore(ctx, rec.StateDir, rec.Host)
	if err != nil {
		return err
	}
	defer s.close()
	if first != nil {
		if err := first(s); err != nil {
			return err
		}
	}
	if rec, err = s.own(rec); err != nil {
		return err
	}
	return undoLocked(s, rec)
}

// isHere says that there is something to look at, which takes the host's namespace.
func (r *record) isHere() (bool, error) {
	here, err := cookie()
	if err != nil {
		return false, err
	}
	if here != r.Host {
		return false, &Error{Op: "undo connection", Err: fmt.Errorf("%w: %d, this one is %d", ErrNotHere, r.Host, here),
			Remedy: "call it in that namespace (Owner with its Namespace)"}
	}
	_, err = os.Stat(r.StateDir)
	return !os.IsNotExist(err), nil
}

func undoLocked(s *store, rec *record) error {
	standard := false
	if std, err := stateDir(""); err == nil {
		standard = std == rec.StateDir
	}
	table := tableName(rec.StateDir, standard)
	u := undoing{store: s, table: table, owned: ownedKey{rec.Host, table}}
	for _, ref := range rec.Endpoints {
		if err := u.run(ref); err != nil {
			return &Error{Op: "disconnect from network", Object: ref.Network, Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "call it as the user who made it")}
		}
	}
	return u.finish()
}

// removeDevices removes the host's ends of endpoints, and of those by which the container has joined other networks, and with them the others, without the lock.
func removeDevices(rec *record) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	s := &store{dir: hostDir(rec.StateDir, rec.Host)}
	fail := func(ref endpointRef, err error) error {
		return &Error{Op: "disconnect from network", Object: ref.Network, Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "call it as the user who made it")}
	}
	for _, ref := range rec.Endpoints {
		if err := removeEnd(h, ref.ID, func() bool { return true }); err != nil {
			return fail(ref, err)
		}
	}
	for _, ref := range rec.Endpoints {
		dir := s.joinedDir(ref.ID)
		l, _ := names(dir) // what cannot be listed, and what the notes say, is looked at with the lock
		for _, id := range l {
			noted := func() bool { _, err := os.Lstat(filepath.Join(dir, id)); return err == nil }
			if err := removeEnd(h, id, noted); err != nil {
				return fail(ref, err)
			}
		}
	}
	return nil
}

// removeEnd removes the host's end of an endpoint if that is still wanted once it is found: later the name may be that of the next run's. A device of the host's that was taken back
// and could not have its own name is left alone, see [savedDevice.takeBack].
func removeEnd(h *netlink.Handle, id string, still func() bool) error {
	link, err := h.LinkByName("cs" + id)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil || link.Type() != "veth" || link.Attrs().Alias == markOf(id) || !still() {
		return err
	}
	return vanish(link.Attrs().Index)
}

// undoing takes endpoints away.
type undoing struct {
	store *store
	table string
	owned ownedKey
	ruled bool // rules may have been made
	dirty bool // elements were missing: the table has to be made afresh
}

// run takes an endpoint away, after those by which its container has joined others.
func (u *undoing) run(ref endpointRef) error {
	l, err := u.store.joinedTo(ref.ID)
	if err == nil && len(l) > 0 {
		err = u.store.settleRun(ref)
	}
	if err != nil {
		return err
	}
	for _, k := range l {
		if err := u.endpoint(endpointRef{k.Network.Name, k.ID}); err != nil {
			return err
		}
	}
	if err := u.endpoint(ref); err != nil {
		return err
	}
	// Not before: by these notes it is found after a kill.
	return errors.Join(u.store.forgetJoined(ref.ID), os.RemoveAll(u.store.joinedDir(ref.ID)))
}

func (u *undoing) endpoint(ref endpointRef) error {
	e, err := u.store.endpoint(ref)
	if err != nil {
		return err
	}
	n, err := u.store.network(ref.Network)
	if err != nil {
		return err
	}
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	u.ruled = u.ruled || n == nil || n.Kind.ruled()
	if n == nil || n.Kind.ruled() {
		if err := removeLink(h, "cs"+ref.ID, "veth", ""); err != nil {
			return err
		}
	}
	if e != nil && e.Limits.Upload.BitsPerSecond > 0 {
		if err := errors.Join(removeForward(u.table, e.Device), removeLink(h, ifbOf(e.ID), "ifb", "")); err != nil {
			return err
		}
	}
	if e != nil && e.Egress != nil {
		if err := removeGuard(u.table, e); err != nil {
			return err
		}
	}
	if n != nil && e != nil && n.Kind.inside() {
		if err := u.inside(h, ref, n, e); err != nil {
			return err
		}
	}
	if e != nil {
		if err := u.rules(n, e); err != nil {
			return err
		}
	}
	if err := u.store.release(ref); err != nil {
		return err
	}
	if empty, err := u.store.isEmpty(ref.Network); !empty || err != nil {
		return err
	}
	if n == nil {
		return u.store.dropNetwork(ref.Network)
	}
	return u.network(h, n)
}

// rules deletes the elements of an endpoint. If any of them is missing all are made afresh, without it, after it is released.
func (u *undoing) rules(n *netState, e *epState) error {
	if err := withdrawOwned(u.owned, e); err != nil {
		return err
	}
	if (len(e.Ports) == 0 || !e.Shared) && (n == nil || n.Kind != kindRouted) {
		return nil
	}
	return u.delete(func(r *rules) error {
		return errors.Join(r.pair(n, e, r.conn.SetDeleteElements), r.shared(e, r.conn.SetDeleteElements))
	})
}

// delete deletes elements of the table; that they or it are missing is no fault, nor that they are too many.
func (u *undoing) delete(f func(*rules) error) error {
	r, err := openRules(u.table)
	if err != nil {
		return err
	}
	defer r.leave()
	ok, err := r.exists()
	if !ok || err != nil {
		return err
	}
	if err := f(r); err != nil {
		return err
	}
	err = r.flush()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EMSGSIZE) { // then none of them was deleted
		u.dirty = true
		return nil
	}
	return err
}

// network removes a network that has no endpoint left.
func (u *undoing) network(h *netlink.Handle, n *netState) error {
	if sub := n.sub(); sub != "" {
		if err := removeLink(h, sub, "vlan", aliasOf(n.Name)); err != nil {
			return err
		}
	}
	if tunnel := n.tunnel(); tunnel != "" {
		if err := removeLink(h, tunnel, "vxlan", aliasOf(n.Name)); err != nil {
			return err
		}
	}
	if device := n.carrierDevice(); device != "" {
		if err := removeLink(h, device, n.Carrier, aliasOf(n.Name)); err != nil {
			return err
		}
	}
	if !n.Kind.ruled() {
		return u.store.dropNetwork(n.Name)
	}
	if n.Kind.bridged() {
		if err := removeLink(h, n.Bridge, "bridge", aliasOf(n.Name)); err != nil {
			return err
		}
	}
	if err := u.delete(func(r *rules) error { return r.network(n, r.conn.SetDeleteElements) }); err != nil {
		return err
	}
	return u.store.dropNetwork(n.Name)
}

// finish removes what no network needs any more.
func (u *undoing) finish() error {
	if !u.store.begun() && !usesRules(u.owned) { // no network was ever recorded here: who could not make one may not look for rules either
		return nil
	}
	left, err := u.store.networks()
	if err != nil {
		return err
	}
	forwarding := slices.ContainsFunc(left, func(n *netState) bool { return n.Kind.ruled() && !n.Internal })
	if !forwarding {
		if err := restoreSysctls(u.store, u.owned); err != nil {
			return err
		}
	}
	if len(left) > 0 && !forwarding {
		if err := u.store.saveSysctls(nil); err != nil {
			return err
		}
	}
	all := len(left) == 0
	left = slices.DeleteFunc(left, func(n *netState) bool { return !n.Kind.ruled() })
	if !u.ruled {
		if all {
			return u.store.dropAll()
		}
		return nil
	}
	if len(left) > 0 && !u.dirty {
		return nil
	}
	r, err := openRules(u.table)
	if err != nil {
		return err
	}
	defer r.leave()
	if len(left) > 0 {
		return rebuild(r, u.store)
	}
	closeOwned(u.owned)
	if err := r.loud(); err != nil { // first, for the same reason; also where others have taken the table of all away
		return &Error{Op: "remove rules", Object: "table bridge " + r.reportsTable().Name, Err: privileged(err)}
	}
	if err := r.remove(); err != nil {
		return &Error{Op: "remove rules", Object: "table inet " + u.table, Err: privileged(err)}
	}
	if !all {
		return nil
	}
	return u.store.dropAll()
}
