package netns

import (
	"context"
	"errors"
	"net/netip"
)

// DeviceConfig describes a network device of the host that a container has for itself. Only Device is needed.
type DeviceConfig struct {
	// Device is the device's name on the host: "eth1". Physical and virtual ones are moved alike.
	Device string
	// Name is the network's name, as in [BridgeConfig]. Default: "device-" and the device's name.
	Name string
	// Addresses are what the device has inside, with the sizes of their subnets, at most one of each family. Default: those it
	// has on the host, and its routes.
	Addresses []netip.Prefix
	// Gateways are the routers outside, each in the subnet of an address that is given. Default: none.
	Gateways []netip.Addr

	// Host, StateDir and Journal are as in [BridgeConfig].
	Host     *Namespace
	StateDir string
	Journal  Journal
}

// Device is a network device that is moved into one container, and given back with its name, hardware address, MTU, alias,
// addresses and routes when the container ends, or is disconnected; after the program was killed, by [Owner]. Until
// then the container's namespace is kept, because the kernel destroys virtual devices with it. Addresses that
// router advertisements made come back by themselves; queueing disciplines, and settings below /proc/sys, are the
// kernel's defaults then. It is safe for use by many goroutines.
type Device struct{ cfg BridgeConfig }

// NewDevice checks cfg and returns the network. All faults are reported at once, as errors that match [ErrInvalid]; nothing of
// the machine is looked at or changed.
//
// What is in the way is found when the container is connected: no such device matches [ErrNotFound] (also when another
// container has it), one that is a port of a bridge or has devices on top of it matches EBUSY. One that the kernel binds
// to its namespace fails as it is moved, with [ErrUnsupported]. It needs the privileges of a [LAN].
func NewDevice(cfg DeviceConfig) (*Device, error) {
	if cfg.Name == "" {
		cfg.Name = "device-" + cfg.Device
	}
	d := &Device{BridgeConfig{Name: cfg.Name, Gateways: cfg.Gateways, NoNAT: true, Host: cfg.Host, StateDir: cfg.StateDir, Journal: cfg.Journal,
		link: linkSpec{Kind: kindDevice, Parent: cfg.Device}, addrs: cfg.Addresses}}
	var faults []error
	for _, p := range cfg.Addresses {
		d.cfg.Subnets = append(d.cfg.Subnets, p.Masked())
		if p.IsValid() && !usable(p.Masked(), p.Addr()) {
			faults = append(faults, fault("Addresses", "%v is no host's address", p))
		}
	}
	faults = append(faults, d.cfg.link.validateParent(), d.cfg.validate())
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return d, nil
}

// Name returns the network's name.
func (d *Device) Name() string { return d.cfg.Name }

func (d *Device) config() *BridgeConfig {
	if d == nil {
		return nil
	}
	return &d.cfg
}

// Prepare connects a container with the defaults of [Endpoint]: a Device can be given to caisson.WithNetwork.
func (d *Device) Prepare(ctx context.Context, r Request) (Attachment, error) {
	return prepareOne(ctx, d, r)
}

// savedDevice is a device as it was on the host.
type savedDevice struct {
	Index     int            `json:"index"`
	Kind      string         `json:"kind"`                // of ip-link(8); "device" for physical ones
	MAC       string         `json:"mac,omitempty"`       // as it was set
	Permanent string         `json:"permanent,omitempty"` // as it was made
	Hardware  string         `json:"hardware,omitempty"`  // the device of the bus
	MTU       int            `json:"mtu"`
	Alias     string         `json:"alias,omitempty"`
	Up        bool           `json:"up,omitempty"`
	Addresses []savedAddress `json:"addresses,omitempty"`
	Routes    []savedRoute   `json:"routes,omitempty"`
}

type savedAddress struct {
	Prefix    netip.Prefix `json:"prefix"`
	Peer      netip.Prefix `json:"peer"`
	Broadcast netip.Addr   `json:"broadcast"`
	Label     string       `json:"label,omitempty"`
	Flags     int          `json:"flags,omitempty"`
	Scope     int          `json:"scope,omitempty"`
	Valid     int          `json:"valid,omitempty"`     // seconds; 0 is for ever
	Preferred int          `json:"preferred,omitempty"` // the same
}

type savedRoute struct {
	Table    int          `json:"table"`
	Dst      netip.Prefix `json:"dst"`
	Gateway  netip.Addr   `json:"gateway"`
	Source   netip.Addr   `json:"source"`
	Priority int          `json:"priority,omitempty"`
	Scope    uint8        `json:"scope,omitempty"`
	Protocol int          `json:"protocol,omitempty"`
	Flags    int          `json:"flags,omitempty"`
	MTU      int          `json:"mtu,omitempty"`
}
