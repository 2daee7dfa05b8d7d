package netns

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
)

func TestPastaArguments(t *testing.T) {
	a := &pastaAttachment{wish: &Pasta{Interface: "tap9"}, rec: record{StateDir: "/run/x", Pasta: "0a"}, ports: []Port{
		{Protocol: "tcp", Container: 80, Host: 8080}, {Protocol: "tcp", Container: 443, Host: 8443, HostAddr: netip.MustParseAddr("127.0.0.1")}}}
	want := []string{"--quiet", "--config-net", "--tcp-ports", "8080:80,127.0.0.1/8443:443", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none",
		"--ns-ifname", "tap9", "--pid", "/run/x/pasta-0a.pid", "--no-map-gw", "7"}
	if got := a.arguments(7); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	a.wish.HostAccess = true
	if slices.Contains(a.arguments(7), "--no-map-gw") {
		t.Error("HostAccess has no effect")
	}
}

// What is missing is named.
func TestPastaRefused(t *testing.T) {
	p := &Pasta{Ports: []Port{{}}, Interface: "/", DNS: DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5353")}}}
	if err := p.Validate(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	_, err := (&Pasta{Program: "/no/such/pasta"}).Prepare(t.Context(), Request{})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrUnsupported) {
		t.Fatal(err)
	}
	if _, err := (&Pasta{Program: "no-such-pasta"}).Prepare(t.Context(), Request{}); !errors.Is(err, exec.ErrNotFound) || !errors.As(err, &e) || e.Remedy != "install the package passt" {
		t.Error(err)
	}
}
