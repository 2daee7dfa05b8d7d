package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// Networks connects containers to one network or several at once: it is what caisson.WithNetwork takes. One value may serve
// many containers, one after the other or at once, as long as nothing fixed in it is taken (addresses, ports).
type Networks struct {
	// Endpoints are the connections, at least one. All have the same [BridgeConfig.Host], StateDir and Journal.
	Endpoints []Endpoint
	// DNS says how names are resolved inside.
	DNS DNS
	// Hosts are further lines of /etc/hosts.
	Hosts []Host
	// NoFiles leaves /etc/hosts, /etc/hostname and /etc/resolv.conf as they are in the root filesystem.
	NoFiles bool

	mu   sync.Mutex
	last *Connection
}

// Host is a line of /etc/hosts.
type Host struct {
	Addr  netip.Addr
	Names []string
}

// DNS says how names are resolved in a container. By default a server of this program's listens in the container's namespace on
// 127.0.0.11, answers for the containers of its networks and forwards the rest; it ends with the program. A detached
// container without a monitor has no such server: the addresses of those that are there when it starts stand in its /etc/hosts, and its
// resolv.conf names the host's resolvers, without those that listen on a loopback address of the host.
type DNS struct {
	// Servers resolve the names of the world. Default: the host's, from its /etc/resolv.conf. Where this program's server
	// forwards, they are asked from the host's network namespace, so that a resolver on a loopback address does
	// (systemd-resolved). A container that asks by itself gets those of them that it can reach, or what systemd-resolved's stub asks; if there is
	// none, [Connection.Warnings] says so.
	Servers []netip.AddrPort
	// Search are the domains in which short names are looked up. Default: the host's.
	Search []string
	// Options are those of resolv.conf(5). Default: none.
	Options []string
	// Disabled leaves out the server.
	Disabled bool
}

// Validate reports all faults of the wish at once. Prepare begins with it.
func (n *Networks) Validate() error {
	var faults []error
	if len(n.Endpoints) == 0 {
		faults = append(faults, fault("Endpoints", "there is none"))
	}
	devices := map[string]bool{}
	var ports []Port
	for i := range n.Endpoints {
		e := &n.Endpoints[i]
		if err := e.validate(i); err != nil {
			faults = append(faults, err)
			continue
		}
		if d := n.device(i); devices[d] {
			faults = append(faults, fault(fmt.Sprintf("Endpoints[%d].Interface", i), "%s is the name of another endpoint", d))
		} else {
			devices[d] = true
		}
		cfg := e.Network.config()
		if first := n.Endpoints[0].Network; first != nil && first.config() != nil && !sameHost(first.config(), cfg) {
			faults = append(faults, fault(fmt.Sprintf("Endpoints[%d].Network", i), "its Host, StateDir or Journal differs from the first one's"))
		}
		if slices.ContainsFunc(n.Endpoints[:i], func(o Endpoint) bool {
			return o.Network != nil && o.Network.config() != nil && o.Network.Name() == cfg.Name
		}) {
			faults = append(faults, fault(fmt.Sprintf("Endpoints[%d].Network", i), "%s is given twice", e.Network.Name()))
		}
		if e.Egress.named() && n.DNS.Disabled {
			faults = append(faults, fault(fmt.Sprintf("Endpoints[%d].Egress", i), "names in it need the server of names, which DNS.Disabled leaves out"))
		}
		ports = append(ports, e.Ports...)
	}
	if len(n.Endpoints) > 1 {
		faults = append(faults, validatePorts(ports))
	}
	faults = append(faults, n.validateNames())
	return errors.Join(faults...)
}

func sameHost(a, b *BridgeConfig) bool {
	return a.Host == b.Host && a.StateDir == b.StateDir && a.Journal == b.Journal
}

func (n *Networks) validateNames() error {
	var faults []error
	for i, h := range n.Hosts {
		if !h.Addr.IsValid() || len(h.Names) == 0 || slices.ContainsFunc(h.Names, func(s string) bool { return !validHost(s) }) {
			faults = append(faults, fault(fmt.Sprintf("Hosts[%d]", i), "%v %q are not an address and names of a host", h.Addr, h.Names))
		}
	}
	for _, s := range n.DNS.Servers {
		if !s.IsValid() || s.Port() == 0 || s.Addr().IsMulticast() || s.Addr().IsUnspecified() {
			faults = append(faults, fault("DNS.Servers", "%v is not an address and port", s))
		}
	}
	for _, s := range n.DNS.Search {
		if s != "." && !validHost(s) {
			faults = append(faults, fault("DNS.Search", "%q is not a domain", s))
		}
	}
	for _, o := range n.DNS.Options {
		if o == "" || slices.ContainsFunc([]byte(o), func(c byte) bool { return c <= ' ' || c >= 0x7f }) {
			faults = append(faults, fault("DNS.Options", "%q is not an option of resolv.conf(5)", o))
		}
	}
	return errors.Join(faults...)
}

// device is the name of the ith endpoint's interface.
func (n *Networks) device(i int) string {
	if d := n.Endpoints[i].Interface; d != "" {
		return d
	}
	return fmt.Sprintf("eth%d", i)
}

// Prepare finds what stands against the wish, such as a port in use, an overlapping subnet, or a missing privilege, and
// reserves addresses and ports. No device is made, and no rule.
func (n *Networks) Prepare(ctx context.Context, r Request) (Attachment, error) {
	c := &Connection{nets: n, req: r}
	if err := n.prepare(ctx, c); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.last = c
	n.mu.Unlock()
	return c, nil
}

// Connect connects any network namespace, such as that of a running container ([OfPID] of its process), and returns what
// disconnects it. name is its name on the networks; "" for none but the aliases. No files are made and no server of names
// runs, for it has its own: that knows the names of the networks until they are disconnected, and asks others about the world as before. It is this
// program's, or another's that has the same [BridgeConfig.StateDir], such as the monitor's of a detached container. A container without any is found by its
// neighbours, and finds them by address. One that is started again has another namespace, and comes without: [Networks.Join] is for the container. ctx bounds the call only.
//
// The connection is this program's: caisson.Recover undoes it after the program has ended, also where a detached container lives on. What is to
// stay is made as caisson makes that of a detached container: [Networks.Prepare], then [Connection.Record], whose data the caller keeps for [ConnectionOwner.Undo], then
// [Connection.Attach]. A container that has a way to the world gets no second one: [Endpoint.NoDefaultRoute].
func (n *Networks) Connect(ctx context.Context, ns *Namespace, name string) (*Connection, error) {
	if name != "" && !validHost(name) {
		return nil, fault("name", "%q is not the name of a host", name)
	}
	for i := range n.Endpoints {
		if n.Endpoints[i].Egress.named() {
			return nil, fault(fmt.Sprintf("Endpoints[%d].Egress", i), "names in it need a server of names, which Connect does not make")
		}
	}
	c := &Connection{nets: n, req: Request{ID: name, Hostname: name}, bare: true}
	if err := n.prepare(ctx, c); err != nil {
		return nil, err
	}
	if err := c.Attach(ctx, Target{Netns: ns.File()}); err != nil {
		return nil, errors.Join(err, c.Detach(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// Status tells about the endpoints of the container that was connected last; nil if there was none.
func (n *Networks) Status() []Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == nil {
		return nil
	}
	return n.last.Status()
}

// Status is an endpoint as it has become.
type Status struct {
	Network   string
	Container string // the container's id
	Names     []string
	Interface string // in the container
	Device    string // its other end, on the host
	Addresses []netip.Prefix
	MAC       net.HardwareAddr
	Ports     []Port // each alone, with the host's port
}

func (e *epState) status() Status {
	mac, _ := net.ParseMAC(e.MAC)
	return Status{Network: e.Network, Container: e.Container, Names: slices.Clone(e.Names), Interface: e.Interface, Device: e.Device,
		Addresses: slices.Clone(e.Addresses), MAC: mac, Ports: slices.Clone(e.Ports)}
}
