package netns

import (
	"crypto/sha256"
	"net/netip"
)

// Carrier encrypts what the hosts of an [Overlay] send each other, by a device of its own on each host: see package netns/wireguard.
type Carrier interface {
	// Kind is the kind of its devices, as ip-link(8) has it.
	Kind() string
	// Overhead is by how many bytes packets grow at most, their outer headers included.
	Overhead() int
	// Probe finds out whether the machine can do it, in the calling thread's network namespace. Nothing is made.
	Probe() error
	// Up makes the device of that name in the calling thread's network namespace, or finds the one that is there, and returns what
	// the other hosts have to know of it: its public key, as text.
	Up(device string) (key string, err error)
	// SetPeers makes the device's peers those.
	SetPeers(device string, peers []CarrierPeer) error
}

// CarrierPeer is another host.
type CarrierPeer struct {
	Key   string     // its public key
	Host  netip.Addr // where it receives
	Inner netip.Addr // its address inside
}

// inner is the address of a host inside the carrier: of fd00::/8 (RFC 4193), and made from the host's address, so that each can compute
// those of the others.
func inner(vni int, host netip.Addr) netip.Addr {
	b := append([]byte{byte(vni >> 16), byte(vni >> 8), byte(vni)}, host.AsSlice()...)
	sum := sha256.Sum256(b)
	a := [16]byte(sum[:16])
	a[0] = 0xfd
	return netip.AddrFrom16(a)
}

// tunnelLocal is the address between which and others' the tunnels are.
func (l *linkSpec) tunnelLocal(host netip.Addr) netip.Addr {
	if l.Carrier == "" {
		return host
	}
	return inner(l.VNI, host)
}

// carrierDevice is the name of the carrier's device; "" if there is none.
func (n *netState) carrierDevice() string {
	if n.Carrier == "" {
		return ""
	}
	return deviceName("csw-", n.Name)
}

// carrierPeers are the hosts that announced a key. Others are not spoken to.
func (n *netState) carrierPeers(hosts []OverlayHost) (out []CarrierPeer) {
	seen := map[string]bool{}
	for i, h := range hosts {
		if i >= maxPeers {
			break
		}
		if h.Key != "" && !seen[h.Key] && unicast(h.Local) && h.Local != n.Local && h.Local.Is4() == n.Local.Is4() {
			seen[h.Key] = true
			out = append(out, CarrierPeer{Key: h.Key, Host: h.Local, Inner: inner(n.VNI, h.Local)})
		}
	}
	return out
}
