package netns

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseDestination(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":                 "192.0.2.1",
		"192.0.2.9/24":              "192.0.2.0/24",
		"192.0.2.0/24:53/udp":       "192.0.2.0/24:53/udp",
		"192.0.2.1:443":             "192.0.2.1:443",
		"0.0.0.0/0/icmp":            "0.0.0.0/0/icmp",
		"2001:db8::/32":             "2001:db8::/32",
		"[2001:db8::1]:80":          "[2001:db8::1]:80",
		"[2001:db8::/32]:80-90/tcp": "[2001:db8::/32]:80-90/tcp",
		"example.org":               "example.org",
		"example.org.:443/tcp":      "example.org:443/tcp",
		"*.example.org":             "*.example.org",
		"*.org:1-64":                "*.org:1-64",
		"server/sctp":               "server/sctp",
		"":                          "",
		"*":                         "",
		"**.org":                    "",
		"a b":                       "",
		"example.org:0":             "",
		"example.org:":              "",
		"example.org/":              "",
		"example.org/ip":            "",
		"example.org:1-65":          "",
		"192.0.2.1:90-80":           "",
		"192.0.2.1:80/icmp":         "",
		"192.0.2.0/33":              "",
		"::ffff:192.0.2.1":          "",
		"fe80::1%eth0":              "",
		"[2001:db8::1":              "",
		"[2001:db8::1]80":           "",
		"[2001:db8::1]:":            "",
		"-bad.example.org":          "",
		strings.Repeat("a.", 200):   "",
	} {
		d, err := ParseDestination(in)
		if (err == nil) != (want != "") || err == nil && d.String() != want {
			t.Errorf("%q: %v, %v, want %q", in, d, err, want)
		}
	}
}

func FuzzParseDestination(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24:53/udp", "[2001:db8::/32]:80-90/tcp", "*.example.org:443", "::/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDestination(s)
		if err != nil {
			return
		}
		if again, err := ParseDestination(d.String()); err != nil || again != d {
			t.Errorf("%q: %+v is read as %+v, %v", s, d, again, err)
		}
	})
}

func TestEgressValidate(t *testing.T) {
	web := newBridge(t, BridgeConfig{Name: "web"})
	check := func(e *Egress, dns DNS) error {
		return (&Networks{Endpoints: []Endpoint{{Network: web, Egress: e}}, DNS: dns}).Validate()
	}
	world := Destination{Prefix: netip.MustParsePrefix("0.0.0.0/0")}
	for _, c := range []struct {
		e    Egress
		want string
	}{
		{Egress{}, ""},
		{Egress{Allow: []Destination{{Domain: "example.org", Port: 443}}, Deny: []Destination{{Domain: "*.example.org"}, world}}, ""},
		{Egress{Allow: []Destination{{}}}, "Allow[0]: either"},
		{Egress{Allow: []Destination{world, {Domain: "a", Prefix: world.Prefix}}}, "Allow[1]: either"},
		{Egress{Deny: []Destination{{Domain: "a", Port: 25}}}, "Deny[0]: a:25"},
		{Egress{Deny: make([]Destination, 1025)}, "more than 1024"},
		{Egress{Allow: []Destination{{Domain: "a", Protocol: "TCP"}}}, "protocol"},
	} {
		err := check(&c.e, DNS{})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.e, err, c.want)
		}
	}
	if err := check(&Egress{Allow: []Destination{{Domain: "a"}}}, DNS{Disabled: true}); err == nil {
		t.Error("names without a server of names")
	}
}

func TestEgressNames(t *testing.T) {
	e := &Egress{Allow: []Destination{{Domain: "Example.org", Port: 443}, {Domain: "*.example.net"}}, Deny: []Destination{{Domain: "bad.example.net"}}}
	rest := &Egress{AllowRest: true, Deny: []Destination{{Domain: "*.bad"}}}
	for name, want := range map[string][2]bool{ // refused by e, by rest
		"example.org": {false, false}, "www.example.org": {true, false}, "a.example.net": {false, false}, "a.b.example.net": {false, false}, "example.net": {true, false},
		"bad.example.net": {true, false}, "notexample.org": {true, false}, "x.bad": {true, true}, "bad": {true, false}, "": {true, false},
	} {
		for i, p := range []*Egress{e, rest} {
			if got := (&namePolicy{endpoints: []policed{{"1", p}}}).refuses(name); got != want[i] {
				t.Errorf("%q by %d: %v", name, i, got)
			}
		}
	}
	// An endpoint without a policy lets all names be asked for, but for those that another's denies.
	both := &namePolicy{endpoints: []policed{{"1", e}, {"2", nil}}}
	if both.refuses("elsewhere") || !both.refuses("bad.example.net") || (*namePolicy)(nil).refuses("x") {
		t.Error("two endpoints")
	}
	for a, want := range map[string]bool{"192.0.2.1": true, "2001:db8::1": true, "10.0.0.1": false, "fd00::1": false, "127.0.0.1": false, "169.254.169.254": false,
		"fe80::1": false, "::1": false, "0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "100.64.0.1": false, "::ffff:8.8.8.8": false} {
		if got := e.believes(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
	private := Egress{PrivateAnswers: true}
	if !private.believes(netip.MustParseAddr("10.0.0.1")) || private.believes(netip.MustParseAddr("127.0.0.1")) || private.believes(netip.MustParseAddr("169.254.169.254")) {
		t.Error("private answers")
	}
	l := openings([]Destination{{Domain: "a", Port: 80, LastPort: 81, Protocol: "tcp"}, {Domain: "a", Port: 80}, {Domain: "a", Protocol: "icmp"}}, []netip.Addr{netip.MustParseAddr("2001:db8::1")},
		func(netip.Addr) bool { return true })
	if len(l) != 5 || l[0].port != 80 || l[4].proto != 58 {
		t.Error(l)
	}
}
