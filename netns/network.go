package netns

import (
	"context"
	"net/netip"
)

// Network is what an [Endpoint] connects a container to: a [*Bridge], a [*Routed], a [*LAN],
// a [*Device], a [*Tun] or an [*Overlay]. Each can also be given to
// caisson.WithNetwork by itself, for a connection with the defaults of Endpoint.
type Network interface {
	// Name returns the network's name.
	Name() string
	// Prepare connects a container with the defaults of [Endpoint]: it makes the network one of caisson's.
	Prepare(ctx context.Context, r Request) (Attachment, error)
	// config is the wish, nil for a nil network.
	config() *BridgeConfig
}

// kind is how containers are connected to a network.
type kind string

const (
	kindBridge  kind = ""
	kindMacvlan kind = "macvlan"
	kindIpvlan  kind = "ipvlan"
	kindVLAN    kind = "vlan"
	kindRouted  kind = "routed"
	kindDevice  kind = "device"
	kindOverlay kind = "overlay"
	kindVXLAN   kind = "vxlan" // of a device only
	kindTun     kind = "tun"
	kindTap     kind = "tap"
)

// bridged says that the network has a bridge on the host.
func (k kind) bridged() bool { return k == kindBridge || k == kindOverlay }

// ruled says that packets pass the host, by rules of ours.
func (k kind) ruled() bool { return k.bridged() || k == kindRouted }

// inside says that the container's device has no other end on the host by which it could be removed: the container's
// namespace is kept, so that it can be found there.
func (k kind) inside() bool { return !k.ruled() }

// leased says that each container has its addresses from the network's subnets.
func (c *BridgeConfig) leased() bool {
	return c.link.Kind.ruled() || len(c.Subnets) > 0 && c.link.Kind != kindDevice
}

// linkSpec is what distinguishes networks that are not plain bridges. It is part of the wish and of the record.
type linkSpec struct {
	Kind   kind    `json:"kind,omitempty"`
	Mode   LANMode `json:"mode,omitempty"`
	Parent string  `json:"parent,omitempty"` // device of the host
	VLAN   int     `json:"vlan,omitempty"`   // 0 is none

	VNI   int        `json:"vni,omitempty"`
	Port  int        `json:"port,omitempty"`
	Local netip.Addr `json:"local,omitzero"`
	Flood bool       `json:"flood,omitempty"` // others do not announce their containers

	Carrier string `json:"carrier,omitempty"` // kind of the device that encrypts
}

// sub is the name of the sub-interface of the parent that belongs to the network; "" if it has none on the host.
func (l *linkSpec) sub() string {
	if l.VLAN == 0 || l.Kind == kindVLAN {
		return ""
	}
	return deviceName("csv-", vlanName(l.Parent, l.VLAN))
}

// ownMAC says that a container's device can have a hardware address of its own.
func (l *linkSpec) ownMAC() bool {
	return l.Kind != kindIpvlan && l.Kind != kindTun && l.Kind != kindDevice && l.Mode != MacvlanPassthru
}

// single says that only one container can be connected.
func (l *linkSpec) single() bool { return l.Kind == kindDevice || l.Mode.single() }

// direct says that the way out needs no gateway.
func (l *linkSpec) direct() bool { return l.Kind == kindTun || l.Mode.routed() }

// deviceType is the kind of the container's device as package netlink calls it.
func (l *linkSpec) deviceType() string {
	if l.Kind == kindTun || l.Kind == kindTap {
		return "tuntap"
	}
	return string(l.Kind)
}

// givenMAC says that a container's device gets a hardware address of ours unless it was wished.
func (n *netState) givenMAC() bool { return n.ownMAC() && n.Kind != kindVLAN }

// leadsOut says that there is a way out of the jth subnet.
func (n *netState) leadsOut(j int) bool { return n.Gateways[j].IsValid() || n.direct() }

// leadsOutFor says that there is one for a family.
func (n *netState) leadsOutFor(is4 bool) bool {
	for j, s := range n.Subnets {
		if s.Addr().Is4() == is4 && n.leadsOut(j) {
			return true
		}
	}
	return false
}

// tunnel is the name of the device of an overlay's tunnels; "" if there is none.
func (n *netState) tunnel() string {
	if n.Kind != kindOverlay {
		return ""
	}
	return deviceName("csx-", n.Name)
}
