package netns

import (
	"context"
	"errors"
	"net/netip"
	"os"
)

// TunConfig describes a network whose other end is this program: what a container sends comes out of a file, and what is
// written to the file is received by it. Name and Open are needed.
type TunConfig struct {
	// Name is as in [BridgeConfig].
	Name string
	// TAP makes a device of Ethernet frames. Default: one of IP packets (TUN).
	TAP bool
	// Open is called for each container, when its device exists and before its command runs; by [Networks.Join] while the command runs, and
	// again in each later run, before its command. What it gets may be of a connection that fails afterwards: then the device goes at once. f is a file of
	// /dev/net/tun without packet information (IFF_NO_PI): each Read is one packet or frame, each Write sends one. It is the
	// callee's, and takes deadlines; when it is closed, or the program ends, the device is gone. s tells the container's
	// addresses. An error makes the connection fail.
	Open func(f *os.File, s Status) error
	// Subnets are what the container's addresses are taken from, at most one of IPv4 and one of IPv6. Default: none, and the
	// device has no address.
	Subnets []netip.Prefix
	// Ranges are as in [BridgeConfig].
	Ranges []netip.Prefix
	// Gateways are addresses that the program answers for, at most one a subnet: the way out. Default: none with TAP; all
	// that is for elsewhere goes to the program without.
	Gateways []netip.Addr
	// MTU is the largest packet in bytes, 68 to 65535; 1280 at least with IPv6. Default: 1500.
	MTU int

	// Host, StateDir and Journal are as in [BridgeConfig]; Host is of no consequence to the packets.
	Host     *Namespace
	StateDir string
	Journal  Journal
}

// Tun is a network whose other end is this program. It is safe for use by many goroutines.
type Tun struct{ cfg BridgeConfig }

// NewTun checks cfg and returns the network. All faults are reported at once, as errors that match [ErrInvalid]; nothing of the
// machine is looked at or changed. Without /dev/net/tun on the host, connecting fails with [ErrUnsupported]. It needs the
// privileges of a [LAN].
func NewTun(cfg TunConfig) (*Tun, error) {
	k := kindTun
	if cfg.TAP {
		k = kindTap
	}
	t := &Tun{BridgeConfig{Name: cfg.Name, Subnets: masked(cfg.Subnets), Ranges: masked(cfg.Ranges), Gateways: cfg.Gateways, MTU: cfg.MTU, NoNAT: true,
		Host: cfg.Host, StateDir: cfg.StateDir, Journal: cfg.Journal, link: linkSpec{Kind: k}, open: cfg.Open}}
	var faults []error
	if cfg.Open == nil {
		faults = append(faults, fault("Open", "it is nil"))
	}
	if err := errors.Join(append(faults, t.cfg.validate())...); err != nil {
		return nil, err
	}
	return t, nil
}

// Name returns the network's name.
func (t *Tun) Name() string { return t.cfg.Name }

func (t *Tun) config() *BridgeConfig {
	if t == nil {
		return nil
	}
	return &t.cfg
}

// Prepare connects a container with the defaults of [Endpoint]: a Tun can be given to caisson.WithNetwork.
func (t *Tun) Prepare(ctx context.Context, r Request) (Attachment, error) {
	return prepareOne(ctx, t, r)
}
