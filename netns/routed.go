package netns

import (
	"context"
	"net/netip"
)

// RoutedConfig describes a network in which each container is connected to the host alone, point to point: by a pair of virtual
// Ethernet devices and a route of the host to the container's addresses, without a bridge. Only Name is needed.
type RoutedConfig struct {
	// Name, Subnets, Ranges, MTU, Internal, HostAccess and NoNAT are as in [BridgeConfig]. Subnets are what addresses are taken
	// from; no device has them.
	Name       string
	Subnets    []netip.Prefix
	Ranges     []netip.Prefix
	MTU        int
	Internal   bool
	HostAccess bool
	NoNAT      bool
	// Gateways are the host's addresses, the same on all of the pairs, one a subnet. Default: the first of each subnet.
	Gateways []netip.Addr

	// Host, StateDir and Journal are as in [BridgeConfig].
	Host     *Namespace
	StateDir string
	Journal  Journal
}

// Routed is a network in which each container is connected to the host alone. Containers reach the world with the host's
// address, and have published ports, as on a bridge; each other they do not reach but by published ports, and no broadcast
// of theirs reaches anyone. The number of containers is not bounded by a bridge's ports. It is safe for use by many goroutines.
type Routed struct{ cfg BridgeConfig }

// NewRouted checks cfg and returns the network. All faults are reported at once, as errors that match [ErrInvalid]; nothing of
// the machine is looked at or changed. Privileges and errors are those of a [Bridge].
func NewRouted(cfg RoutedConfig) (*Routed, error) {
	r := &Routed{BridgeConfig{Name: cfg.Name, Subnets: masked(cfg.Subnets), Ranges: masked(cfg.Ranges), Gateways: cfg.Gateways, MTU: cfg.MTU,
		Internal: cfg.Internal, HostAccess: cfg.HostAccess, NoNAT: cfg.NoNAT, Host: cfg.Host, StateDir: cfg.StateDir, Journal: cfg.Journal,
		link: linkSpec{Kind: kindRouted}}}
	if err := r.cfg.validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// Name returns the network's name.
func (r *Routed) Name() string { return r.cfg.Name }

func (r *Routed) config() *BridgeConfig {
	if r == nil {
		return nil
	}
	return &r.cfg
}

// Prepare connects a container to the network with the defaults of [Endpoint]: a Routed can be given to caisson.WithNetwork.
func (r *Routed) Prepare(ctx context.Context, q Request) (Attachment, error) {
	return prepareOne(ctx, r, q)
}

// Endpoints tells about all containers on the network, of this program and others, in no particular order.
func (r *Routed) Endpoints(ctx context.Context) ([]Status, error) { return r.cfg.listEndpoints(ctx) }
