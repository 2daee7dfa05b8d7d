package netns

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// All faults of a pool's wish are told at once, by field.
func TestPoolValidate(t *testing.T) {
	web := newBridge(t, BridgeConfig{Name: "web", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}})
	dev, err := NewDevice(DeviceConfig{Device: "phys0"})
	if err != nil {
		t.Fatal(err)
	}
	e := Endpoint{Network: web, Addresses: []netip.Addr{netip.MustParseAddr("10.77.1.9")}, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Ports: []Port{{Container: 80, Host: 80}}}
	_, err = NewPool(PoolConfig{Size: 1001, Networks: &Networks{Endpoints: []Endpoint{e, {Network: dev}}}})
	if !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"Size", "Endpoints[0].Addresses", "Endpoints[0].MAC", "Endpoints[0].Ports", "Endpoints[1].Network"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if _, err := NewPool(PoolConfig{Size: 1, Networks: &Networks{}}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
