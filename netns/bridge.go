package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// BridgeConfig describes a network of containers on one machine: a bridge, to which each container is connected by a pair of
// virtual Ethernet devices. The zero values are sensible, but for Name.
type BridgeConfig struct {
	// Name is the network's name: 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit. Programs that
	// give the same name, the same properties and the same state directory share the network.
	Name string
	// Subnets are the networks that addresses are taken from: at most one of IPv4 (/8 to /30) and one of IPv6 (/48 to
	// /126). None that overlaps with a route of the host is accepted. Default: a /20 of 10.208.0.0/12 that is free, and a
	// random /64 of fd00::/8 if the kernel has IPv6.
	Subnets []netip.Prefix
	// Ranges limit the addresses that are given out to those within; each lies in a subnet. A family without a range uses
	// its whole subnet. Fixed addresses ([Endpoint.Addresses]) may lie outside of them.
	Ranges []netip.Prefix
	// Gateways are the bridge's own addresses, one a subnet. Default: the first of each subnet.
	Gateways []netip.Addr
	// Bridge is the name of the bridge device, at most 15 bytes. Default: "cs-" and the name, or a number made from it.
	Bridge string
	// MTU is the largest packet in bytes, 68 to 65535; 1280 at least with IPv6. Default: that of the device of the host's
	// default route, else 1500.
	MTU int
	// Internal makes a network without a way out: nothing is forwarded from or to elsewhere, no port can be published, and
	// names of the world are not resolved.
	Internal bool
	// HostAccess lets containers connect to the host's own services. By default they are refused all but ICMP, and answers to
	// connections that the host began; ports that are published for other containers are reached all the same.
	HostAccess bool
	// NoNAT sends packets to the world with the containers' own addresses, for networks that are routed. Default: they get
	// the host's address (masquerading).
	NoNAT bool

	// Host is the network namespace that plays the host: where the bridge is made, and ports are published. It stays the
	// caller's, open as long as the network is used. Default: the caller's own.
	Host *Namespace
	// StateDir holds what programs share about their networks. It belongs to the caller's user alone, mode 0700, and is
	// made if its parent exists. Default: /run/caisson/netns for root, $XDG_RUNTIME_DIR/caisson/netns for others. Programs
	// with different directories must not use the same subnets, and each undoes by itself what it changed of the host.
	StateDir string
	// Journal records what has to be undone if the program is killed. Default: the journal of this user that
	// caisson.Recover reads.
	Journal Journal

	// Parent is a device of the host whose virtual LAN of tag VLAN (802.1Q, 1 to 4094) the bridge becomes a part of, by a
	// sub-interface that goes with the network. Then the devices on that LAN reach the containers, and they them, as
	// neighbours. Both or neither are given. Default: neither.
	Parent string
	VLAN   int

	link  linkSpec
	addrs []netip.Prefix               // of a Device
	open  func(*os.File, Status) error // of a Tun

	carrier Carrier // of an Overlay
}

// Journal records what outlives a program that is killed, so that a later one can undo it. Add is called before the thing is
// made, Done when it is gone; Done of an entry is called once.
type Journal interface {
	// Add records data, in the format version of the owner, and returns what identifies the entry.
	Add(owner string, version int, data []byte) (id uint64, err error)
	// Done strikes out the entry.
	Done(id uint64) error
}

// Bridge is a network of containers on this machine. It is safe for use by many goroutines. Nothing is made before the first
// container is attached, and when the last one is gone all of it is removed.
type Bridge struct{ cfg BridgeConfig }

// NewBridge checks cfg and returns the network. All faults are reported at once, as errors that match [ErrInvalid]; nothing of
// the machine is looked at or changed.
func NewBridge(cfg BridgeConfig) (*Bridge, error) {
	b := &Bridge{cfg}
	b.cfg.link = linkSpec{Parent: cfg.Parent, VLAN: cfg.VLAN}
	b.cfg.Subnets = masked(cfg.Subnets)
	b.cfg.Ranges = masked(cfg.Ranges)
	if b.cfg.Bridge == "" {
		b.cfg.Bridge = deviceName("cs-", cfg.Name)
	}
	if err := b.cfg.validate(); err != nil {
		return nil, err
	}
	return b, nil
}

// Name returns the network's name.
func (b *Bridge) Name() string { return b.cfg.Name }

func (b *Bridge) config() *BridgeConfig {
	if b == nil {
		return nil
	}
	return &b.cfg
}

func masked(l []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range l {
		out = append(out, p.Masked())
	}
	return out
}

func (c *BridgeConfig) validate() error {
	var faults []error
	add := func(field, format string, args ...any) { faults = append(faults, fault(field, format, args...)) }
	if !validName(c.Name, 63) {
		add("Name", "%q is not 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit", c.Name)
	}
	if err := checkDevice(c.Bridge); err != nil {
		add("Bridge", "%v", err)
	}
	six := false
	families := map[bool]int{}
	for _, p := range c.Subnets {
		switch is4 := p.Addr().Is4(); {
		case !p.IsValid() || p.Addr().Is4In6():
			add("Subnets", "%v is not a subnet", p)
		case is4 && (p.Bits() < 8 || p.Bits() > 30):
			add("Subnets", "%v: IPv4 subnets are /8 to /30", p)
		case !is4 && (p.Bits() < 48 || p.Bits() > 126):
			add("Subnets", "%v: IPv6 subnets are /48 to /126", p)
		case p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || p.Addr().IsUnspecified():
			add("Subnets", "%v is not for hosts", p)
		}
		families[p.Addr().Is4()]++
		six = six || p.Addr().Is6()
	}
	if families[true] > 1 || families[false] > 1 {
		add("Subnets", "at most one of IPv4 and one of IPv6")
	}
	c.validateWithin(add)
	if c.link.Kind.bridged() && (c.Parent != "" || c.VLAN != 0) {
		if c.VLAN == 0 {
			add("VLAN", "it is needed with Parent")
		}
		if err := c.link.validateParent(); err != nil {
			faults = append(faults, err)
		}
	}
	switch {
	case c.MTU < 0 || c.MTU > 65535 || c.MTU > 0 && c.MTU < 68:
		add("MTU", "%d is not 68 to 65535", c.MTU)
	case six && c.MTU > 0 && c.MTU < 1280:
		add("MTU", "%d is less than 1280, which IPv6 needs", c.MTU)
	}
	return errors.Join(faults...)
}

// validateWithin judges what has to lie in the subnets.
func (c *BridgeConfig) validateWithin(add func(field, format string, args ...any)) {
	ranges, gateways := map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
	for _, r := range c.Ranges {
		s, ok := c.subnetOf(r.Addr())
		if !ok || s.Bits() > r.Bits() {
			add("Ranges", "%v is in no subnet that is given", r)
		} else if ranges[s] {
			add("Ranges", "%v has more than one", s)
		}
		ranges[s] = true
	}
	for _, g := range c.Gateways {
		s, ok := c.subnetOf(g)
		if !ok || !usable(s, g) {
			add("Gateways", "%v is no host's address in a subnet that is given", g)
		} else if gateways[s] {
			add("Gateways", "%v has more than one", s)
		}
		gateways[s] = true
	}
}

func (c *BridgeConfig) subnetOf(a netip.Addr) (netip.Prefix, bool) {
	for _, s := range c.Subnets {
		if s.Contains(a) {
			return s, true
		}
	}
	return netip.Prefix{}, false
}

// Endpoint is a container's connection to a network.
type Endpoint struct {
	// Network is what it is connected to.
	Network Network
	// Interface is the name of the device inside, at most 15 bytes. Default: eth0, eth1, ... in the order given.
	Interface string
	// Addresses are fixed addresses, at most one of each family. Default: free ones of the network.
	Addresses []netip.Addr
	// MAC is the hardware address, six bytes of a single station. Default: one that is made from the IPv4 address, or at random.
	// Devices that have their parent's take no other: those of ipvlan, and MacvlanPassthru.
	MAC net.HardwareAddr
	// Aliases are further names, under which the others on the network find it. Several containers may share one: each is
	// among the answers, in turn. Names of hosts, at most 63 bytes a part and 253 in all.
	Aliases []string
	// Ports are published on the host, from a bridge that is not internal.
	Ports []Port
	// NoDefaultRoute leaves the way to the world to another endpoint. Default: the first endpoint that is not of an internal
	// network has it.
	NoDefaultRoute bool
	// Limits bound what is carried. Default: nothing is bounded.
	Limits Limits
	// Egress says what the container may connect to by the endpoint. Default, nil: whatever the network reaches.
	Egress *Egress
}

func (e *Endpoint) validate(i int) error {
	var faults []error
	add := func(field, format string, args ...any) {
		faults = append(faults, fault(fmt.Sprintf("Endpoints[%d].%s", i, field), format, args...))
	}
	if e.Network == nil || e.Network.config() == nil {
		add("Network", "it is nil")
		return errors.Join(faults...)
	}
	cfg := e.Network.config()
	if err := checkDevice(e.Interface); err != nil {
		add("Interface", "%v", err)
	}
	families := map[bool]bool{}
	for _, a := range e.Addresses {
		s, in := cfg.subnetOf(a)
		switch {
		case !a.IsValid() || a.Zone() != "" || a.Is4In6():
			add("Addresses", "%v is not an address", a)
		case len(cfg.Subnets) > 0 && (!in || !usable(s, a)):
			add("Addresses", "%v is no host's address in a subnet of network %s", a, cfg.Name)
		case !cfg.leased():
			add("Addresses", "network %s has no subnet", cfg.Name)
		case families[a.Is4()]:
			add("Addresses", "at most one of each family")
		}
		families[a.Is4()] = true
	}
	if len(e.MAC) != 0 && (len(e.MAC) != 6 || e.MAC[0]&1 != 0 || e.MAC.String() == "00:00:00:00:00:00") {
		add("MAC", "%v is not the address of one Ethernet station", e.MAC)
	}
	if len(e.MAC) != 0 && !cfg.link.ownMAC() {
		add("MAC", "devices of network %s have their parent's (%v)", cfg.Name, cfg.link.Mode)
	}
	for _, n := range e.Aliases {
		if !validHost(n) {
			add("Aliases", "%q is not the name of a host", n)
		}
	}
	if err := e.Limits.validate(); err != nil {
		add("Limits", "%v", err)
	}
	if e.Limits.any() && !cfg.link.Kind.ruled() {
		add("Limits", "network %s does not pass the host (%v)", cfg.Name, cfg.link.Mode)
	}
	if err := e.Egress.validate(); err != nil {
		add("Egress", "%v", err)
	}
	if e.Egress != nil && !cfg.link.Kind.bridged() {
		add("Egress", "network %s has no bridge", cfg.Name)
	}
	if len(e.Ports) > 0 && cfg.Internal {
		add("Ports", "network %s is internal", cfg.Name)
	}
	if len(e.Ports) > 0 && !cfg.link.Kind.ruled() {
		add("Ports", "network %s does not pass the host (%v)", cfg.Name, cfg.link.Mode)
	}
	if err := validatePorts(e.Ports); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// Prepare connects a container to the network with the defaults of [Endpoint]: a Bridge can be given to caisson.WithNetwork.
func (b *Bridge) Prepare(ctx context.Context, r Request) (Attachment, error) {
	return prepareOne(ctx, b, r)
}

// Request is what is known about a container before it exists; it is caisson.NetworkRequest.
type Request = struct {
	ID, Hostname string
	// Rootless says that the container lives in a user namespace made without privilege.
	Rootless bool
	// Attended says that the program which attaches the container lives as long as it does: only then can it serve the container
	// names, and carry what is sent to ports that are published on the host's loopback addresses.
	Attended bool
	// Kept is the path of a file that goes with the container and not with its run: what it is connected to by [Networks.Join] is noted there, for
	// its next run. Its directory is there, and the user's alone. Empty: Memory does.
	Kept string
	// Memory does the same in this program's memory. Nil: no later run knows.
	Memory *sync.Map
}

// Attachment is a container's place in its networks; it is caisson.NetworkAttachment.
type Attachment = interface {
	// Files are put into the container before its command runs: /etc/hosts, /etc/hostname, /etc/resolv.conf.
	Files() []File
	// Attach makes the devices in the container's network namespace.
	Attach(ctx context.Context, t Target) error
	// Detach undoes everything.
	Detach(ctx context.Context) error
}

// File is a file for a container; it is caisson.NetworkFile.
type File = struct {
	Path string // absolute, in the container
	Data []byte
	Mode fs.FileMode // permission bits
}

// Target is the container that is attached; it is caisson.NetworkTarget.
type Target = struct {
	// Netns is the container's network namespace, open until Attach returns.
	Netns *os.File
	// Pid is the container's first process, in the host program's pid namespace.
	Pid int
}

// checkDevice judges the name of a network device; "" is a default.
func checkDevice(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > 15 || s == "." || s == ".." || s == "lo" || s == "all" || s == "default" ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == ':' || r == '%' }) {
		return fmt.Errorf("%q cannot be the name of a network device, 1 to 15 bytes without '/', ':' and '%%'", s)
	}
	return nil
}
