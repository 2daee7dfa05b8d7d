// Package wireguard encrypts what the hosts of an overlay network send each other. A program that does not import it links nothing
// of it.
//
//	carrier, err := wireguard.New(wireguard.Config{})
//	...
//	web, err := netns.NewOverlay(netns.OverlayConfig{..., Carrier: carrier})
//
// Each host makes a device and a key of its own with its first container on the network; the key is in the kernel alone, and goes with the
// last. Who is let in is who announces a key by the overlay's Peers: whoever can write there is trusted. The kernel needs WireGuard
// (CONFIG_WIREGUARD, Linux 5.6), and IPv6. See https://www.wireguard.com and include/uapi/linux/wireguard.h of the kernel.
package wireguard

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/caisson-go/caisson/netns"
)

// Config says how hosts speak to each other. The zero values are sensible.
type Config struct {
	// Port is the UDP port that every host of the network receives on, 1 to 65535. Networks on one host have different ones.
	// Default: 51820.
	Port int
	// KeepAlive is how often a packet is sent on connections that are idle, for hosts behind NAT: whole seconds up to 65535. Default: never.
	KeepAlive time.Duration
}

// Carrier is a netns.Carrier. It may serve several hosts, and is safe for use by many goroutines.
type Carrier struct{ cfg Config }

var _ netns.Carrier = (*Carrier)(nil)

// New checks cfg. Faults match netns.ErrInvalid.
func New(cfg Config) (*Carrier, error) {
	if cfg.Port == 0 {
		cfg.Port = 51820
	}
	if cfg.Port < 1 || cfg.Port > 65535 {
		return nil, &netns.Error{Op: "check", Object: "Port", Err: fmt.Errorf("%w: %d is not 1 to 65535", netns.ErrInvalid, cfg.Port)}
	}
	if k := cfg.KeepAlive; k < 0 || k > 65535*time.Second || k%time.Second != 0 {
		return nil, &netns.Error{Op: "check", Object: "KeepAlive", Err: fmt.Errorf("%w: %v is not whole seconds up to 65535", netns.ErrInvalid, k)}
	}
	return &Carrier{cfg}, nil
}

// Kind is "wireguard".
func (c *Carrier) Kind() string { return "wireguard" }

// Overhead is 80 bytes: 40 of IPv6, 8 of UDP, 32 of WireGuard.
func (c *Carrier) Overhead() int { return 80 }

const keySize = 32

// parseKey reads a key as wg(8) writes it.
func parseKey(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != keySize {
		return nil, fmt.Errorf("%w: %q is not a key", netns.ErrInvalid, s)
	}
	return b, nil
}
