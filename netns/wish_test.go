package netns

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParsePort(t *testing.T) {
	for text, want := range map[string]string{
		"80": "80/tcp", "8080:80": "8080:80/tcp", "127.0.0.1:8080:80/udp": "127.0.0.1:8080:80/udp", "[::1]::80": "[::1]::80/tcp", "::1:8080:80": "[::1]:8080:80/tcp",
		"7000-7002:8000-8002": "7000-7002:8000-8002/tcp", "0.0.0.0:80:80": "0.0.0.0:80:80/tcp",
		"": "", "0": "", "65536": "", "80/icmp": "", "a:80": "", "1-3:80": "", "80-82": "", "7000-7002:80-81": "", "x:1:1": "", ":80": "", "224.0.0.1:1:1": "", "3-1:3-1": "",
		"65535-65536:1-2": "", "1/": "",
	} {
		p, err := ParsePort(text)
		got := p.String()
		if err != nil {
			got = ""
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q: %v", text, got, want, err)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "127.0.0.1::80", "[::1]:1-2:3-4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePort(s)
		if err != nil {
			return
		}
		q, err := ParsePort(p.String())
		if err != nil || p != q {
			t.Fatalf("%q: %+v became %+v: %v", s, p, q, err)
		}
	})
}

func TestValidate(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	four := []netip.Prefix{p("10.1.0.0/24")}
	for field, c := range map[string]BridgeConfig{
		"Name: invalid":     {Name: "../x"},
		"Bridge: invalid":   {Name: "x", Bridge: "a/b"},
		"Bridge: invalid:":  {Name: "x", Bridge: "sixteen-letters-"},
		"Subnets: invalid":  {Name: "x", Subnets: []netip.Prefix{p("10.0.0.0/31")}},
		"Subnets: invalid:": {Name: "x", Subnets: []netip.Prefix{p("10.0.0.0/24"), p("10.1.0.0/24")}},
		"is not for hosts":  {Name: "x", Subnets: []netip.Prefix{p("127.0.0.0/8")}},
		"Ranges: invalid":   {Name: "x", Subnets: four, Ranges: []netip.Prefix{p("10.2.0.0/25")}},
		"Gateways: invalid": {Name: "x", Subnets: four, Gateways: []netip.Addr{a("10.1.0.255")}},
		"MTU: invalid":      {Name: "x", MTU: 67},
		"which IPv6 needs":  {Name: "x", MTU: 1000, Subnets: []netip.Prefix{p("fd00::/64")}},
	} {
		_, err := NewBridge(c)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	// All faults at once.
	_, err := NewBridge(BridgeConfig{Name: "/", MTU: 1, Bridge: "lo"})
	for _, f := range []string{"Name", "MTU", "Bridge"} {
		if err == nil || !strings.Contains(err.Error(), f) {
			t.Errorf("%s is missing: %v", f, err)
		}
	}
	b, err := NewBridge(BridgeConfig{Name: "x", Subnets: four})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := NewBridge(BridgeConfig{Name: "y", Internal: true})
	if err != nil {
		t.Fatal(err)
	}
	for field, n := range map[string]*Networks{
		"Endpoints: invalid":       {},
		"Network: invalid":         {Endpoints: []Endpoint{{}}},
		"Addresses: invalid":       {Endpoints: []Endpoint{{Network: b, Addresses: []netip.Addr{a("10.1.0.0")}}}},
		"MAC: invalid":             {Endpoints: []Endpoint{{Network: b, MAC: []byte{1, 0, 0, 0, 0, 1}}}},
		"Aliases: invalid":         {Endpoints: []Endpoint{{Network: b, Aliases: []string{"a b"}}}},
		"is internal":              {Endpoints: []Endpoint{{Network: inner, Ports: []Port{{Container: 1}}}}},
		"of another endpoint":      {Endpoints: []Endpoint{{Network: b, Interface: "eth1"}, {Network: inner}}},
		"x is given twice":         {Endpoints: []Endpoint{{Network: b}, {Network: b}}},
		"given twice":              {Endpoints: []Endpoint{{Network: b, Ports: []Port{{Container: 1, Host: 5}, {Container: 2, Host: 4, Count: 3}}}}},
		"exceeds 65535":            {Endpoints: []Endpoint{{Network: b, Ports: []Port{{Container: 65535, Host: 1, Count: 2}}}}},
		"more than 8192":           {Endpoints: []Endpoint{{Network: b, Ports: []Port{{Container: 1, Host: 1, Count: 60000}}}}},
		"not tcp, udp or sctp":     {Endpoints: []Endpoint{{Network: b, Ports: []Port{{Protocol: "icmp", Container: 1}}}}},
		"SCTP is not published":    {Endpoints: []Endpoint{{Network: b, Ports: []Port{{Protocol: "sctp", Container: 1, HostAddr: netip.IPv6Loopback()}}}}},
		"Hosts[0]: invalid":        {Endpoints: []Endpoint{{Network: b}}, Hosts: []Host{{Names: []string{"x"}}}},
		"DNS.Servers: invalid":     {Endpoints: []Endpoint{{Network: b}}, DNS: DNS{Servers: []netip.AddrPort{{}}}},
		"DNS.Search: invalid":      {Endpoints: []Endpoint{{Network: b}}, DNS: DNS{Search: []string{"a\nb"}}},
		"DNS.Options: invalid":     {Endpoints: []Endpoint{{Network: b}}, DNS: DNS{Options: []string{"a\nnameserver"}}},
		"differs from the first":   {Endpoints: []Endpoint{{Network: b}, {Network: &Bridge{BridgeConfig{Name: "z", StateDir: "/x"}}}}},
		"cannot be the name of a ": {Endpoints: []Endpoint{{Network: b, Interface: "lo"}}},
	} {
		if err := n.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	two := &Networks{Endpoints: []Endpoint{{Network: b, Ports: []Port{{Container: 1, Host: 5, HostAddr: a("192.0.2.1")}, {Container: 2, Host: 5, HostAddr: a("192.0.2.2")}}}}}
	if err := two.Validate(); err != nil {
		t.Error("one port on two addresses:", err)
	}
}

func TestFreeAddr(t *testing.T) {
	s := netip.MustParsePrefix("10.1.0.0/29")
	var order []string
	taken := map[netip.Addr]bool{}
	hint := netip.MustParseAddr("10.1.0.4")
	for {
		a, err := freeAddr(s, s, hint, maxTries, func(a netip.Addr) (bool, error) { return !taken[a], nil })
		if err != nil {
			if !errors.Is(err, ErrExhausted) {
				t.Error(err)
			}
			break
		}
		taken[a], hint = true, a
		order = append(order, strings.TrimPrefix(a.String(), "10.1.0."))
	}
	if got := strings.Join(order, " "); got != "5 6 1 2 3 4" {
		t.Error(got)
	}
}

func TestFreeSubnet(t *testing.T) {
	var used []netip.Prefix
	for i := range 256 {
		p, err := freeSubnet(uint32(77), used)
		if err != nil {
			t.Fatal(i, err)
		}
		if _, bad := overlaps(p, used); bad || p != p.Masked() || !pool.Contains(p.Addr()) {
			t.Fatal(p)
		}
		used = append(used, p)
	}
	if _, err := freeSubnet(0, used); !errors.Is(err, ErrExhausted) {
		t.Error(err)
	}
}

func TestClash(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"any", "192.0.2.1", true}, {"any4", "192.0.2.1", true}, {"any6", "192.0.2.1", false}, {"any4", "any6", false}, {"any", "any6", true},
		{"192.0.2.1", "192.0.2.1", true}, {"192.0.2.1", "192.0.2.2", false}, {"any6", "::1", true}, {"any4", "::1", false},
	} {
		if clash(c.a, c.b) != c.want || clash(c.b, c.a) != c.want {
			t.Errorf("%s and %s", c.a, c.b)
		}
	}
}

func TestRecord(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"state":"/run/x","host":1,"endpoints":[{"network":"web","id":"0a"}]}`: true,
		`{"state":"run/x","host":1}`:                                                 false,
		`{"state":"/run/../x","host":1}`:                                             false,
		`{"state":"/run/x","host":1,"endpoints":[{"network":"../web","id":"0a"}]}`:   false,
		`{"state":"/run/x","host":1,"endpoints":[{"network":"web","id":"../../x"}]}`: false,
		`[]`: false,
	} {
		if _, err := decodeRecord(recordVersion, []byte(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := decodeRecord(2, []byte(`{"state":"/run/x"}`)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func newBridge(t testing.TB, cfg BridgeConfig) *Bridge {
	t.Helper()
	b, err := NewBridge(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
