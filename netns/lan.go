package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
)

// LANMode says how a container takes part in the network of a device of the host.
type LANMode uint8

// Modes of a [LAN]; see ip-link(8), and Documentation/networking/ipvlan.rst of the kernel. The zero value is refused. In none
// of them do packets between the host itself and its containers pass the parent: neither reaches the other, unless the
// switch outside sends them back.
const (
	// MacvlanBridge: each container has a hardware address of its own, and those on one parent reach each other.
	MacvlanBridge LANMode = iota + 1
	// MacvlanPrivate: as MacvlanBridge, but they do not reach each other.
	MacvlanPrivate
	// MacvlanVEPA: as MacvlanBridge, but what they send each other goes out, and comes back if the switch does that (802.1Qbg).
	MacvlanVEPA
	// MacvlanPassthru: a single container has the parent's own hardware address.
	MacvlanPassthru
	// IpvlanL2: all have the parent's hardware address, and addresses of its network. For places that allow one hardware
	// address a port.
	IpvlanL2
	// IpvlanL3: the parent routes: neither broadcasts nor ARP; whoever is outside needs a route to the subnet. Packets do not
	// pass the host's rules.
	IpvlanL3
	// IpvlanL3S: as IpvlanL3, but packets pass the host's rules and connection tracking.
	IpvlanL3S
	// VLANDevice: a single container has the parent's sub-interface of [LANConfig.VLAN] for itself.
	VLANDevice
)

var lanModes = map[LANMode]string{MacvlanBridge: "macvlan bridge", MacvlanPrivate: "macvlan private", MacvlanVEPA: "macvlan vepa",
	MacvlanPassthru: "macvlan passthru", IpvlanL2: "ipvlan l2", IpvlanL3: "ipvlan l3", IpvlanL3S: "ipvlan l3s", VLANDevice: "vlan"}

// String returns the kind of device and its mode: "macvlan bridge".
func (m LANMode) String() string {
	if s, ok := lanModes[m]; ok {
		return s
	}
	return "LANMode(" + strconv.Itoa(int(m)) + ")"
}

func (m LANMode) kind() kind {
	switch m {
	case VLANDevice:
		return kindVLAN
	case IpvlanL2, IpvlanL3, IpvlanL3S:
		return kindIpvlan
	}
	return kindMacvlan
}

// single says that the mode is for one container.
func (m LANMode) single() bool { return m == MacvlanPassthru || m == VLANDevice }

// routed says that there are no neighbours: everything goes out by the device.
func (m LANMode) routed() bool { return m == IpvlanL3 || m == IpvlanL3S }

// LANConfig describes a network of containers that take part in the network that a device of the host is connected to, without
// passing the host's own addresses, rules and bridges. Name, Mode and Parent are needed.
type LANConfig struct {
	// Name is as in [BridgeConfig].
	Name string
	// Mode says how they take part.
	Mode LANMode
	// Parent is the device of the host: "eth0". It must exist when a container is connected; it stays as it is.
	Parent string
	// VLAN is the tag (802.1Q, 1 to 4094) of the virtual LAN in Parent's network: a sub-interface is made for it, which goes
	// with the last container. Where the host has one already, that is the Parent. Default: 0, untagged; [VLANDevice] needs
	// a tag.
	VLAN int
	// Subnets are the networks that addresses are taken from, at most one of IPv4 and one of IPv6. They are usually those
	// of the devices outside, and must not overlap with another network on the same parent. Default: none; the container
	// gets no address, and what runs in it asks for one (DHCP) or makes its own (SLAAC).
	Subnets []netip.Prefix
	// Ranges limit the addresses that are given out to those within; one a subnet. Whoever shares the network with other
	// machines keeps these addresses out of their hands. Addresses of the host itself are never given out.
	Ranges []netip.Prefix
	// Gateways are the routers outside, at most one a subnet. Default: none, so that there is no way beyond the subnet; in the
	// modes IpvlanL3 and IpvlanL3S everything goes out by the device, and no gateway may be given.
	Gateways []netip.Addr
	// MTU is the largest packet in bytes, at most that of Parent. Default: that of Parent.
	MTU int

	// Host, StateDir and Journal are as in [BridgeConfig].
	Host     *Namespace
	StateDir string
	Journal  Journal
}

// LAN is a network of containers that take part in the network of a device of the host. It is safe for use by many goroutines.
// Ports are not published: containers have addresses that others reach.
type LAN struct{ cfg BridgeConfig }

// NewLAN checks cfg and returns the network. All faults are reported at once, as errors that match [ErrInvalid]; nothing of the
// machine is looked at or changed.
//
// What is in the way is found when a container is connected, before anything is made: no such parent matches [ErrNotFound], a
// kernel without macvlan, ipvlan or 802.1Q matches [ErrUnsupported], a subnet of another network on the parent [ErrOverlap],
// a second container where the mode allows one [ErrExists]. It needs CAP_NET_ADMIN over the host's network
// namespace, CAP_SYS_ADMIN to enter the container's and to keep it findable by a mount.
func NewLAN(cfg LANConfig) (*LAN, error) {
	l := &LAN{BridgeConfig{Name: cfg.Name, Subnets: masked(cfg.Subnets), Ranges: masked(cfg.Ranges), Gateways: cfg.Gateways, MTU: cfg.MTU,
		Host: cfg.Host, StateDir: cfg.StateDir, Journal: cfg.Journal, NoNAT: true,
		link: linkSpec{Kind: cfg.Mode.kind(), Mode: cfg.Mode, Parent: cfg.Parent, VLAN: cfg.VLAN}}}
	var faults []error
	if _, ok := lanModes[cfg.Mode]; !ok {
		faults = append(faults, fault("Mode", "%v is not one of the modes", cfg.Mode))
	}
	if cfg.Mode == VLANDevice && cfg.VLAN == 0 {
		faults = append(faults, fault("VLAN", "mode %v needs a tag", cfg.Mode))
	}
	if cfg.Mode.routed() && len(cfg.Gateways) > 0 {
		faults = append(faults, fault("Gateways", "mode %v has none", cfg.Mode))
	}
	faults = append(faults, l.cfg.link.validateParent(), l.cfg.validate())
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *linkSpec) validateParent() error {
	var faults []error
	if l.Parent == "" {
		faults = append(faults, fault("Parent", "it is empty"))
	} else if err := checkDevice(l.Parent); err != nil {
		faults = append(faults, fault("Parent", "%v", err))
	}
	if l.VLAN < 0 || l.VLAN > 4094 {
		faults = append(faults, fault("VLAN", "%d is not 1 to 4094", l.VLAN))
	}
	return errors.Join(faults...)
}

// vlanName is how people call the sub-interface.
func vlanName(parent string, tag int) string { return fmt.Sprintf("%s.%d", parent, tag) }

// Name returns the network's name.
func (l *LAN) Name() string { return l.cfg.Name }

func (l *LAN) config() *BridgeConfig {
	if l == nil {
		return nil
	}
	return &l.cfg
}

// Prepare connects a container to the network with the defaults of [Endpoint]: a LAN can be given to caisson.WithNetwork.
func (l *LAN) Prepare(ctx context.Context, r Request) (Attachment, error) {
	return prepareOne(ctx, l, r)
}

// Endpoints tells about all containers on the network, of this program and others, in no particular order.
func (l *LAN) Endpoints(ctx context.Context) ([]Status, error) { return l.cfg.listEndpoints(ctx) }

func prepareOne(ctx context.Context, n Network, r Request) (Attachment, error) {
	return (&Networks{Endpoints: []Endpoint{{Network: n}}}).Prepare(ctx, r)
}
