package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Egress says where the container of an endpoint may connect to. Without one it may connect to whatever its network reaches. The
// zero value lets it connect to nothing: what it may reach stands in Allow. Answers to connections that others begin always
// pass. The host's side of the endpoint enforces it, for the neighbours on the network as for the world, so that no privilege inside
// helps against it; packets with an address that is not the endpoint's own are dropped too.
//
// # Names
//
// A name in Allow is opened by the server of names inside (see [DNS]): when it answers a query for the name, the addresses in the
// answer may be reached, for as long as the answer may be kept and a minute more, 30 seconds at least and an hour at most; connections that
// were made stay open while they are used. With AllowRest false the server answers for the allowed names and for neighbours only, and for all
// others that there is no such name: queries are a way out as well. A program that asks other servers, or none, gains
// nothing by it: neither those servers nor the addresses it learns are open.
//
// A name in Deny is answered as one that does not exist. With AllowRest a program could learn its addresses elsewhere: other servers
// of names are then denied on their usual ports, 53 and 853, but a name in Deny is as safe as that, and no more.
//
// # What passes in any case
//
// ARP and neighbour discovery within the subnet, and reports of multicast listeners. What is denied is dropped without an answer, and counted:
// [Traffic.DeniedPackets]. ICMP errors that the container would send are dropped unless AllowRest, and fragments of packets but the first pass only
// where an address is allowed with all protocols and ports.
//
// It needs nf_tables for the family bridge (CONFIG_NF_TABLES_BRIDGE); the error matches [ErrUnsupported] if the kernel lacks it.
type Egress struct {
	// Allow is what may be reached, at most 1024 destinations.
	Allow []Destination
	// Deny is what may not, even if Allow has it too; at most 1024.
	Deny []Destination
	// AllowRest lets the container reach what stands in neither list.
	AllowRest bool
	// PrivateAnswers believes answers about names that name private addresses (RFC 1918, RFC 4193). By default only public
	// addresses are opened for a name of the world, so that whoever has an allowed name cannot open the host's own networks by
	// pointing it there. Neighbours' names need it not. Loopback, link-local and multicast addresses are never opened.
	PrivateAnswers bool
}

// Destination is something on the network: addresses or a name, and ports.
type Destination struct {
	// Prefix are the addresses. Either it or Domain is given.
	Prefix netip.Prefix
	// Domain is a name, "example.org", or all names below one, "*.example.org", which does not include that itself.
	Domain string
	// Protocol is "tcp", "udp", "sctp" or "icmp", which stands for ICMPv6 too. Default: all.
	Protocol string
	// Port is the first port, and LastPort the last, if there are several: at most 64 for a name. Default: all ports. A name in Deny has
	// neither ports nor a protocol.
	Port, LastPort uint16
}

// maxDestinations bounds a list.
const maxDestinations = 1024

// maxNamePorts bounds how many ports a name opens: each is an element of a set.
const maxNamePorts = 64

// ParseDestination reads a destination as [Destination.String] writes it: "192.0.2.0/24", "192.0.2.1:443", "[2001:db8::/32]:80-90/tcp",
// "example.org:443/tcp", "*.example.org/udp".
func ParseDestination(s string) (Destination, error) {
	var d Destination
	fail := func(why string) (Destination, error) { return Destination{}, fault("destination", "%q: %s", s, why) }
	rest := s
	if i := strings.LastIndexByte(rest, '/'); i >= 0 && i+1 < len(rest) && (rest[i+1] < '0' || rest[i+1] > '9') {
		rest, d.Protocol = rest[:i], rest[i+1:]
	} else if i >= 0 && i+1 == len(rest) {
		return fail("the protocol is missing")
	}
	host, ports := rest, ""
	if strings.HasPrefix(rest, "[") {
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			return fail("a bracket is missing")
		}
		host = rest[1:end]
		if tail := rest[end+1:]; tail != "" {
			if tail[0] != ':' || len(tail) == 1 {
				return fail("what follows the bracket is no port")
			}
			ports = tail[1:]
		}
	} else if strings.Count(rest, ":") == 1 {
		host, ports, _ = strings.Cut(rest, ":")
		if ports == "" {
			return fail("the port is missing")
		}
	}
	if ports != "" {
		first, n, err := parseRange(ports)
		if err != nil {
			return fail(err.Error())
		}
		if d.Port = first; n > 1 {
			d.LastPort = first + uint16(n) - 1
		}
	}
	if p, err := netip.ParsePrefix(host); err == nil {
		d.Prefix = p
	} else if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		d.Prefix = netip.PrefixFrom(a, a.BitLen())
	} else {
		d.Domain = strings.TrimSuffix(host, ".")
	}
	if err := d.validate(); err != nil {
		return fail(err.Error())
	}
	d.Prefix = d.Prefix.Masked()
	return d, nil
}

// String writes the destination.
func (d Destination) String() string {
	host := d.Domain
	if d.Prefix.IsValid() {
		if host = d.Prefix.String(); d.Prefix.IsSingleIP() {
			host = d.Prefix.Addr().String()
		}
		if d.Prefix.Addr().Is6() && d.Port != 0 {
			host = "[" + host + "]"
		}
	}
	if d.Port != 0 {
		host += ":" + strconv.Itoa(int(d.Port))
		if d.LastPort > d.Port {
			host += "-" + strconv.Itoa(int(d.LastPort))
		}
	}
	if d.Protocol != "" {
		host += "/" + d.Protocol
	}
	return host
}

func (d Destination) last() uint16 { return max(d.Port, d.LastPort) }

func (d Destination) validate() error {
	name, below := strings.CutPrefix(d.Domain, "*.")
	switch {
	case (d.Domain != "") == d.Prefix.IsValid():
		return errors.New("either addresses or a name are given")
	case d.Domain != "" && !validHost(name) && !(below && validHost("x."+name)):
		return fmt.Errorf("%q is not the name of a host", d.Domain)
	case d.Prefix.IsValid() && (d.Prefix.Addr().Is4In6() || d.Prefix.Addr().Zone() != ""):
		return fmt.Errorf("%v are not addresses", d.Prefix)
	case !slices.Contains([]string{"", "tcp", "udp", "sctp", "icmp"}, d.Protocol):
		return fmt.Errorf("protocol %q is not tcp, udp, sctp or icmp", d.Protocol)
	case d.Protocol == "icmp" && (d.Port != 0 || d.LastPort != 0):
		return errors.New("icmp has no ports")
	case d.LastPort != 0 && d.LastPort < d.Port || d.Port == 0 && d.LastPort != 0:
		return fmt.Errorf("%d-%d is not a range of ports", d.Port, d.LastPort)
	case d.Domain != "" && d.Port != 0 && int(d.last())-int(d.Port) >= maxNamePorts:
		return fmt.Errorf("a name opens at most %d ports, or all", maxNamePorts)
	}
	return nil
}

func (e *Egress) validate() error {
	if e == nil {
		return nil
	}
	var faults []error
	for name, l := range map[string][]Destination{"Allow": e.Allow, "Deny": e.Deny} {
		if len(l) > maxDestinations {
			faults = append(faults, fmt.Errorf("%s: more than %d destinations", name, maxDestinations))
			continue
		}
		for i, d := range l {
			if err := d.validate(); err != nil {
				faults = append(faults, fmt.Errorf("%s[%d]: %w", name, i, err))
			} else if name == "Deny" && d.Domain != "" && (d.Port != 0 || d.Protocol != "") {
				faults = append(faults, fmt.Errorf("%s[%d]: %v: a name is denied with all its ports", name, i, d))
			}
		}
	}
	return errors.Join(faults...)
}

// named says that names are among the destinations.
func (e *Egress) named() bool {
	has := func(d Destination) bool { return d.Domain != "" }
	return e != nil && (slices.ContainsFunc(e.Allow, has) || slices.ContainsFunc(e.Deny, has))
}

// covers says that a name, in lower case and without a dot at its end, is meant.
func (d Destination) covers(name string) bool {
	domain := strings.ToLower(d.Domain)
	if below, ok := strings.CutPrefix(domain, "*"); ok {
		return len(name) > len(below) && strings.HasSuffix(name, below)
	}
	return domain != "" && domain == name
}

// opens returns the destinations of Allow that a name stands in; refused says that it may not be asked for.
func (e *Egress) opens(name string) (l []Destination, refused bool) {
	for _, d := range e.Deny {
		if d.covers(name) {
			return nil, true
		}
	}
	for _, d := range e.Allow {
		if d.covers(name) {
			l = append(l, d)
		}
	}
	return l, len(l) == 0 && !e.AllowRest
}

// believes says that an address in an answer about a name of the world is opened.
func (e *Egress) believes(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6() && a != broadcast && (e.PrivateAnswers || !a.IsPrivate() && !shared.Contains(a))
}

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	shared    = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
)
