//go:build !linux

package wireguard

import (
	"fmt"
	"runtime"

	"github.com/caisson-go/caisson/netns"
)

func unsupported() error {
	return &netns.Error{Op: "use WireGuard", Err: fmt.Errorf("%w on %s", netns.ErrUnsupported, runtime.GOOS), Remedy: "overlays exist on Linux only"}
}

// Probe needs Linux.
func (c *Carrier) Probe() error { return unsupported() }

// Up needs Linux.
func (c *Carrier) Up(string) (string, error) { return "", unsupported() }

// SetPeers needs Linux.
func (c *Carrier) SetPeers(string, []netns.CarrierPeer) error { return unsupported() }
