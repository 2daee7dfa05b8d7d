package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// OverlayConfig describes a network of containers on several hosts: on each a bridge, and between them tunnels of UDP packets
// (VXLAN, RFC 7348). Name, Subnets, Ranges, VNI, Local and Peers are needed.
type OverlayConfig struct {
	// Name, Bridge, Internal, HostAccess and NoNAT are as in [BridgeConfig]. The name may differ from host to host; it does
	// not where containers look for each other by name and network.
	Name       string
	Bridge     string
	Internal   bool
	HostAccess bool
	NoNAT      bool
	// Subnets are those of the network, the same on each host: at most one of IPv4 and one of IPv6.
	Subnets []netip.Prefix
	// Ranges are this host's parts of the subnets, one of each, which overlap with no other host's: from them its containers
	// have their addresses.
	Ranges []netip.Prefix
	// Gateways are the bridge's own addresses, one a range. Default: the first of each range. Each host leads its own
	// containers to the world.
	Gateways []netip.Addr
	// VNI is the number of the network on the wire, 1 to 16777215, the same on each host.
	VNI int
	// Port is the UDP port that all hosts receive on. Default: 4789.
	Port int
	// Local is this host's address for the packets between hosts; a device has it when a container is connected. It must be
	// reachable from the other hosts on Port: where their addresses are not under the embedder's control alone, a
	// firewall or a Carrier has to keep strangers out, for VXLAN itself knows no authentication.
	Local netip.Addr
	// MTU is the largest packet in bytes of the containers. Default: that of the device with Local, less 50 bytes (70 if Local
	// is an IPv6 address, or with a Carrier, whose own overhead is taken off as well).
	MTU int
	// Peers is how the hosts learn of each other and of their containers: [StaticPeers], or [NewPeerStore].
	Peers Peers
	// Carrier encrypts what goes between the hosts, and keeps those out that Peers does not know: wireguard.New of package
	// netns/wireguard. All hosts have one of the same kind, and announce their keys, so that StaticPeers do not go
	// with it. Default: none, and all is readable on the way.
	Carrier Carrier

	// Host, StateDir and Journal are as in [BridgeConfig].
	Host     *Namespace
	StateDir string
	Journal  Journal
}

// Peers is how the hosts of overlay networks learn of each other. It is used by several goroutines.
type Peers interface {
	// Announce tells the others about this host, in place of what it told before. A host without endpoints withdraws.
	Announce(ctx context.Context, self OverlayHost) error
	// Watch calls changed with all hosts that are known, this one among them or not, and again when they have changed, until
	// ctx ends. It returns before only with an error that makes it useless to try again at once.
	Watch(ctx context.Context, changed func([]OverlayHost)) error
}

// OverlayHost is a host of an overlay network, as it is announced.
type OverlayHost struct {
	// Local is where it receives packets.
	Local netip.Addr `json:"local"`
	// Endpoints are its containers' connections to the network.
	Endpoints []OverlayEndpoint `json:"endpoints,omitempty"`
	// Key is the public key of its Carrier.
	Key string `json:"key,omitempty"`
}

// OverlayEndpoint is a container's connection, as others see it.
type OverlayEndpoint struct {
	Names     []string     `json:"names,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	MAC       string       `json:"mac"`
}

// StaticPeers are the addresses of the other hosts, known beforehand. Nothing is announced: a packet for an
// address that was not seen yet is sent to each of them, and the answer is learned from. Names of other hosts' containers are
// not known.
type StaticPeers []netip.Addr

// Announce does nothing.
func (StaticPeers) Announce(context.Context, OverlayHost) error { return nil }

// Watch tells the hosts once.
func (p StaticPeers) Watch(ctx context.Context, changed func([]OverlayHost)) error {
	var out []OverlayHost
	for _, a := range p {
		out = append(out, OverlayHost{Local: a})
	}
	changed(out)
	<-ctx.Done()
	return nil
}

// Overlay is a network of containers on several hosts. It is safe for use by many goroutines. While this program has a
// container on it, what others announce becomes entries of the kernel: the hardware address of each container far away, the
// host it is on, and the answers to questions for it (ARP, neighbour discovery), so that nothing is sent to all. The entries
// stay as they are when the program ends before a detached container does. Names of containers far away are known to the
// server of names. A host that is lost takes its containers with it and nothing else; when it is announced anew, from wherever,
// it is back. What a killed program announced stays until the host announces something else, or whoever keeps the store
// takes it away.
type Overlay struct {
	cfg   BridgeConfig
	peers Peers

	mu    sync.Mutex
	users int
	stop  func()        // what tells are ended
	done  chan struct{} // closed when it has
	heard bool          // of others, at least once
	known []OverlayHost // last told
	key   string        // of the carrier's device
}

// maxVNI is the largest number of a network on the wire.
const maxVNI = 1<<24 - 1

// NewOverlay checks cfg and returns the network. All faults are reported at once, as errors that match [ErrInvalid]; nothing of
// the machine is looked at or changed. Privileges and errors are those of a [Bridge]; a kernel without VXLAN (CONFIG_VXLAN)
// matches [ErrUnsupported], a Local that no device has [ErrNotFound].
func NewOverlay(cfg OverlayConfig) (*Overlay, error) {
	if cfg.Port == 0 {
		cfg.Port = 4789
	}
	_, flood := cfg.Peers.(StaticPeers)
	o := &Overlay{peers: cfg.Peers, cfg: BridgeConfig{Name: cfg.Name, Bridge: cfg.Bridge, Internal: cfg.Internal, HostAccess: cfg.HostAccess, NoNAT: cfg.NoNAT,
		Subnets: masked(cfg.Subnets), Ranges: masked(cfg.Ranges), Gateways: slices.Clone(cfg.Gateways), MTU: cfg.MTU,
		Host: cfg.Host, StateDir: cfg.StateDir, Journal: cfg.Journal,
		link: linkSpec{Kind: kindOverlay, VNI: cfg.VNI, Port: cfg.Port, Local: cfg.Local, Flood: flood}, carrier: cfg.Carrier}}
	if cfg.Carrier != nil {
		o.cfg.link.Carrier = cfg.Carrier.Kind()
	}
	c := &o.cfg
	if c.Bridge == "" {
		c.Bridge = deviceName("cs-", c.Name)
	}
	var faults []error
	add := func(field, format string, args ...any) { faults = append(faults, fault(field, format, args...)) }
	if len(c.Subnets) == 0 {
		add("Subnets", "there is none")
	}
	if len(c.Ranges) != len(c.Subnets) {
		add("Ranges", "one of each subnet is needed")
	}
	if cfg.VNI < 1 || cfg.VNI > maxVNI {
		add("VNI", "%d is not 1 to %d", cfg.VNI, maxVNI)
	}
	if cfg.Port < 1 || cfg.Port > 65535 {
		add("Port", "%d is not 1 to 65535", cfg.Port)
	}
	if !unicast(cfg.Local) {
		add("Local", "%v is not the address of a host", cfg.Local)
	}
	if flood && cfg.Carrier != nil {
		add("Carrier", "StaticPeers announce no keys")
	}
	if cfg.Peers == nil {
		add("Peers", "it is nil")
	}
	if len(c.Gateways) == 0 {
		for _, s := range c.Subnets {
			c.Gateways = append(c.Gateways, firstIn(s, within(s, c.Ranges)))
		}
	}
	faults = append(faults, c.validate())
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return o, nil
}

// unicast says that a is the address of one host, without a zone.
func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() && a.Zone() == "" && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// firstIn is the first address for a host in range r of subnet s.
func firstIn(s, r netip.Prefix) netip.Addr {
	a := r.Addr()
	for a.IsValid() && !usable(s, a) && r.Contains(a) {
		a = a.Next()
	}
	return a
}

// Name returns the network's name.
func (o *Overlay) Name() string { return o.cfg.Name }

func (o *Overlay) config() *BridgeConfig {
	if o == nil {
		return nil
	}
	return &o.cfg
}

// Prepare connects a container with the defaults of [Endpoint]: an Overlay can be given to caisson.WithNetwork.
func (o *Overlay) Prepare(ctx context.Context, r Request) (Attachment, error) {
	return prepareOne(ctx, o, r)
}

// Endpoints tells about all containers on the network on this host, of this program and others, in no particular order.
func (o *Overlay) Endpoints(ctx context.Context) ([]Status, error) { return o.cfg.listEndpoints(ctx) }

// Peers tells what is known about the other hosts; nil while this program has no container on the network.
func (o *Overlay) Peers() []OverlayHost {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.known)
}

// Bounds of what is taken from others.
const (
	maxPeers     = 1024
	maxEndpoints = 4096
	maxNames     = 32
)

// tunnels is what the kernel has to know about the other hosts.
type tunnels struct {
	flood []netip.Addr               // to whom goes what is for all, or unknown
	macs  map[string]netip.Addr      // behind which host a hardware address is
	addrs map[netip.Addr]string      // which hardware address an address has
	names map[string]OverlayEndpoint // what the server of names is to know, by address
}

// tunnelsTo judges what others announce: they cannot speak for this host's range, nor for addresses beyond the network.
func (n *netState) tunnelsTo(hosts []OverlayHost) tunnels {
	t := tunnels{macs: map[string]netip.Addr{}, addrs: map[netip.Addr]string{}, names: map[string]OverlayEndpoint{}}
	for i, h := range hosts {
		if i >= maxPeers {
			break
		}
		if !unicast(h.Local) || h.Local == n.Local || h.Local.Is4() != n.Local.Is4() {
			continue
		}
		if n.Flood && !slices.Contains(t.flood, h.Local) {
			t.flood = append(t.flood, h.Local)
		}
		if n.Carrier != "" && h.Key == "" {
			continue
		}
		for _, e := range h.Endpoints[:min(len(h.Endpoints), maxEndpoints)] {
			n.addFar(&t, n.tunnelLocal(h.Local), e)
		}
	}
	return t
}

func (n *netState) addFar(t *tunnels, host netip.Addr, e OverlayEndpoint) {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" || mac.String() == n.MAC {
		return
	}
	far := OverlayEndpoint{MAC: mac.String()}
	for _, a := range e.Addresses {
		i, ok := n.subnetOf(a)
		if !ok || !usable(n.Subnets[i], a) || n.Ranges[i].Contains(a) || t.addrs[a] != "" || len(far.Addresses) >= 2 {
			continue
		}
		far.Addresses = append(far.Addresses, a)
	}
	if _, taken := t.macs[far.MAC]; taken || len(far.Addresses) == 0 {
		return
	}
	t.macs[far.MAC] = host
	for _, a := range far.Addresses {
		t.addrs[a] = far.MAC
	}
	for _, s := range e.Names[:min(len(e.Names), maxNames)] {
		if validHost(s) {
			far.Names = append(far.Names, s)
		}
	}
	t.names[far.Addresses[0].String()] = far
}
