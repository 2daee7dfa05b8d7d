package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/netns"
)

// Numbers of include/uapi/linux/wireguard.h.
const (
	cmdGet, cmdSet = 0, 1

	devIfname, devPrivateKey, devPublicKey, devPort, devPeers = 2, 3, 4, 6, 8

	peerKey, peerFlags, peerEndpoint, peerKeepAlive, peerAllowed = 1, 3, 4, 5, 9
	peerRemove, peerReplaceAllowed                               = 1, 2

	allowedFamily, allowedAddr, allowedMask = 1, 2, 3
)

// Probe finds out whether the kernel has WireGuard, loading its module if need be.
func (c *Carrier) Probe() error {
	_, err := family()
	return err
}

func family() (uint16, error) {
	f, err := netlink.GenlFamilyGet("wireguard")
	if err == nil {
		return f.ID, nil
	}
	e := &netns.Error{Op: "use WireGuard", Err: fmt.Errorf("%w: %w", netns.ErrUnsupported, err), Remedy: "needs a kernel with it (CONFIG_WIREGUARD): modprobe wireguard"}
	if errors.Is(err, unix.EPERM) {
		e.Err, e.Remedy = fmt.Errorf("%w: %w", netns.ErrPrivilege, err), "needs CAP_NET_ADMIN over the host's network namespace"
	}
	return 0, e
}

func request(command uint8, flags int) (*nl.NetlinkRequest, error) {
	id, err := family()
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(int(id), flags)
	req.AddData(&nl.Genlmsg{Command: command, Version: 1})
	return req, nil
}

// Up makes the device with a new key, or finds it.
func (c *Carrier) Up(device string) (string, error) {
	key, _, err := get(device)
	if errors.Is(err, unix.ENODEV) {
		if err = netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: device, TxQLen: -1}}); err == nil {
			key, _, err = get(device)
		}
	}
	if err != nil {
		return "", err
	}
	if !slices.Equal(key, make([]byte, keySize)) && len(key) == keySize {
		return base64.StdEncoding.EncodeToString(key), nil
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	req, err := request(cmdSet, unix.NLM_F_ACK)
	if err != nil {
		return "", err
	}
	req.AddData(nl.NewRtAttr(devIfname, nl.ZeroTerminated(device)))
	req.AddData(nl.NewRtAttr(devPrivateKey, private.Bytes()))
	req.AddData(nl.NewRtAttr(devPort, nl.Uint16Attr(uint16(c.cfg.Port))))
	if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return "", fmt.Errorf("set key of %s: %w", device, err)
	}
	return base64.StdEncoding.EncodeToString(private.PublicKey().Bytes()), nil
}

// get returns a device's public key, and those of its peers.
func get(device string) (key []byte, peers map[string]bool, err error) {
	req, err := request(cmdGet, unix.NLM_F_DUMP)
	if err != nil {
		return nil, nil, err
	}
	req.AddData(nl.NewRtAttr(devIfname, nl.ZeroTerminated(device)))
	messages, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("look at %s: %w", device, err)
	}
	peers = map[string]bool{}
	for _, m := range messages {
		if len(m) < nl.SizeofGenlmsg {
			continue
		}
		k, err := parseDevice(m[nl.SizeofGenlmsg:], peers)
		if err != nil {
			return nil, nil, err
		}
		if k != nil {
			key = k
		}
	}
	return key, peers, nil
}

// parseDevice reads one message about a device.
func parseDevice(b []byte, peers map[string]bool) (key []byte, err error) {
	attrs, err := attributes(b)
	if err != nil {
		return nil, err
	}
	for _, a := range attrs {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case devPublicKey:
			key = slices.Clone(a.Value)
		case devPeers:
			each, err := attributes(a.Value)
			if err != nil {
				return nil, err
			}
			for _, p := range each {
				of, err := attributes(p.Value)
				if err != nil {
					return nil, err
				}
				for _, x := range of {
					if x.Attr.Type&nl.NLA_TYPE_MASK == peerKey {
						peers[string(x.Value)] = true
					}
				}
			}
		}
	}
	return key, nil
}

// attributes reads a list whose last element may lack its padding: netlink's reader goes beyond its end then.
func attributes(b []byte) ([]syscall.NetlinkRouteAttr, error) {
	if n := len(b) % unix.NLA_ALIGNTO; n != 0 {
		b = append(slices.Clone(b), make([]byte, unix.NLA_ALIGNTO-n)...)
	}
	return nl.ParseRouteAttr(b)
}

// perMessage is how many peers go into one message.
const perMessage = 128

// SetPeers makes the peers those. Connections with those that stay go on.
func (c *Carrier) SetPeers(device string, peers []netns.CarrierPeer) error {
	_, have, err := get(device)
	if err != nil {
		return err
	}
	var all []*nl.RtAttr
	for _, p := range peers {
		key, err := parseKey(p.Key)
		if err != nil {
			continue // it locks itself out alone
		}
		delete(have, string(key))
		all = append(all, c.peer(key, p))
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		p := nl.NewRtAttr(unix.NLA_F_NESTED, nil)
		p.AddRtAttr(peerKey, []byte(key))
		p.AddRtAttr(peerFlags, nl.Uint32Attr(peerRemove))
		all = append(all, p)
	}
	for part := range slices.Chunk(all, perMessage) {
		req, err := request(cmdSet, unix.NLM_F_ACK)
		if err != nil {
			return err
		}
		req.AddData(nl.NewRtAttr(devIfname, nl.ZeroTerminated(device)))
		list := nl.NewRtAttr(unix.NLA_F_NESTED|devPeers, nil)
		for _, p := range part {
			list.AddChild(p)
		}
		req.AddData(list)
		if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
			return fmt.Errorf("set peers of %s: %w", device, err)
		}
	}
	return nil
}

func (c *Carrier) peer(key []byte, p netns.CarrierPeer) *nl.RtAttr {
	a := nl.NewRtAttr(unix.NLA_F_NESTED, nil)
	a.AddRtAttr(peerKey, key)
	a.AddRtAttr(peerFlags, nl.Uint32Attr(peerReplaceAllowed))
	a.AddRtAttr(peerEndpoint, sockaddr(netip.AddrPortFrom(p.Host, uint16(c.cfg.Port))))
	a.AddRtAttr(peerKeepAlive, nl.Uint16Attr(uint16(c.cfg.KeepAlive.Seconds())))
	allowed := a.AddRtAttr(unix.NLA_F_NESTED|peerAllowed, nil)
	one := allowed.AddRtAttr(unix.NLA_F_NESTED, nil)
	one.AddRtAttr(allowedFamily, nl.Uint16Attr(unix.AF_INET6))
	one.AddRtAttr(allowedAddr, p.Inner.AsSlice())
	one.AddRtAttr(allowedMask, []byte{128})
	return a
}

// sockaddr is an address as the kernel has it.
func sockaddr(a netip.AddrPort) []byte {
	ne := binary.NativeEndian
	if a.Addr().Is4() {
		b := binary.BigEndian.AppendUint16(ne.AppendUint16(nil, unix.AF_INET), a.Port())
		return append(append(b, a.Addr().AsSlice()...), make([]byte, 8)...)
	}
	b := binary.BigEndian.AppendUint16(ne.AppendUint16(nil, unix.AF_INET6), a.Port())
	return append(append(append(b, 0, 0, 0, 0), a.Addr().AsSlice()...), 0, 0, 0, 0)
}
