package netns

import (
	"errors"
	"net/netip"
	"testing"
)

// Point to point: the host, the world by the host's address, published ports; no neighbour.
func TestRouted(t *testing.T) {
	nothingLeft(t)
	outside, host, out := world(t)
	echo(t, outside, 80)
	r, err := NewRouted(RoutedConfig{Name: "p2p"})
	if err != nil {
		t.Fatal(err)
	}
	a, ca := connect(t, "a", Endpoint{Network: r, Ports: []Port{{Container: 80, Host: 8088}}})
	b, cb := connect(t, "b", Endpoint{Network: r})
	echo(t, a, 80)
	echo(t, b, 81)
	for i, h := range host {
		says(t, "the world", b.Dial, "tcp", out[i], 80, h.String())
		says(t, "a published port", outside.Dial, "tcp", h, 8088, out[i].String())
		says(t, "from the host", hostDial, "tcp", addresses(ca)[i], 80, "")
		silent(t, "neighbour", a.Dial, addresses(cb)[i], 81)
		says(t, "a published port of the neighbour", b.Dial, "tcp", h, 8088, "")
	}
	for _, s := range ca.Status() {
		for _, p := range s.Addresses {
			if !p.IsSingleIP() {
				t.Errorf("%v has neighbours", p)
			}
		}
	}
	if l, err := r.Endpoints(testContext(t)); err != nil || len(l) != 2 {
		t.Error(l, err)
	}
	detach(t, ca)
	c, cc := connect(t, "c", Endpoint{Network: r})
	echo(t, c, 80)
	says(t, "from the host, a third one", hostDial, "tcp", addresses(cc)[0], 80, "")
	says(t, "the world from the second", b.Dial, "tcp", out[0], 80, host[0].String())
}

// Nothing leads out of an internal one.
func TestRoutedInternal(t *testing.T) {
	nothingLeft(t)
	outside, _, out := world(t)
	echo(t, outside, 80)
	r, err := NewRouted(RoutedConfig{Name: "p2p", Internal: true, Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	a, ca := connect(t, "a", Endpoint{Network: r})
	echo(t, a, 80)
	says(t, "from the host", hostDial, "tcp", addresses(ca)[0], 80, "")
	silent(t, "the world", a.Dial, out[0], 80)
	if _, err := NewRouted(RoutedConfig{}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	other, err := NewRouted(RoutedConfig{Name: "overlap", Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Networks{Endpoints: []Endpoint{{Network: other}}}).Connect(testContext(t), newNS(t), "b"); !errors.Is(err, ErrOverlap) {
		t.Error(err)
	}
}
