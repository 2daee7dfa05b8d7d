package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Port publishes a port of a container on the host, or a range of ports.
type Port struct {
	// Protocol is "tcp", the default, "udp" or "sctp". SCTP is published by rules alone, and so on all of the host's addresses but the
	// loopback ones; [Pasta] does not publish it. It needs a kernel with CONFIG_IP_SCTP, without which publishing fails, and with
	// CONFIG_NF_CT_PROTO_SCTP, whose absence is not noticed: the port is taken then, but not translated.
	Protocol string
	// Container is the first port in the container, 1 to 65535.
	Container uint16
	// Host is the first port on the host. Zero: one that is free, chosen by the kernel; [Status.Ports] tells.
	Host uint16
	// Count is how many ports there are from these on. Zero means one. With more, Host is given.
	Count uint16
	// HostAddr is the address of the host on which the port is published. Default: all.
	HostAddr netip.Addr
}

// String returns the port as "192.0.2.1:8080-8081:80-81/tcp", as [ParsePort] reads it.
func (p Port) String() string {
	var b strings.Builder
	if p.HostAddr.IsValid() {
		if b.WriteString(p.HostAddr.String()); p.HostAddr.Is6() {
			b.Reset()
			b.WriteString("[" + p.HostAddr.String() + "]")
		}
		b.WriteByte(':')
	}
	if p.Host != 0 || p.HostAddr.IsValid() {
		if p.Host != 0 {
			b.WriteString(portRange(p.Host, p.Count))
		}
		b.WriteByte(':')
	}
	b.WriteString(portRange(p.Container, p.Count) + "/" + p.protocol())
	return b.String()
}

func portRange(first, count uint16) string {
	s := strconv.Itoa(int(first))
	if count > 1 {
		s += "-" + strconv.Itoa(int(first)+int(count)-1)
	}
	return s
}

func (p Port) protocol() string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

func (p Port) count() int { return max(1, int(p.Count)) }

// ParsePort reads a port as docker run -p takes it: "80", "8080:80", "127.0.0.1:8080:80/udp", "[::1]::80", "7000-7010:7000-7010".
func ParsePort(s string) (Port, error) {
	var p Port
	fail := func(why string) (Port, error) { return Port{}, fault("port", "%q: %s", s, why) }
	rest, proto, ok := strings.Cut(s, "/")
	if p.Protocol = proto; !ok {
		p.Protocol = "tcp"
	}
	host, inside := "", rest
	if ok && proto == "" {
		return fail("the protocol is missing")
	}
	hasHost := false
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, inside, hasHost = rest[:i], rest[i+1:], true
	}
	var n, m int
	var err error
	if p.Container, n, err = parseRange(inside); err != nil {
		return fail(err.Error())
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		text := host[:i]
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			text = text[1 : len(text)-1]
		}
		if p.HostAddr, err = netip.ParseAddr(text); err != nil {
			return fail("the host's address is not one")
		}
		host = host[i+1:]
	}
	if host != "" {
		if p.Host, m, err = parseRange(host); err != nil {
			return fail(err.Error())
		}
		if n != m {
			return fail("the ranges differ in length")
		}
	} else if hasHost && !p.HostAddr.IsValid() {
		return fail("the host's port is missing")
	}
	if n > 1 {
		if p.Host == 0 {
			return fail("a range needs the host's ports")
		}
		p.Count = uint16(n)
	}
	if err := p.validate(); err != nil {
		return Port{}, err
	}
	return p, nil
}

func parseRange(s string) (first uint16, n int, err error) {
	a, b, two := strings.Cut(s, "-")
	lo, err := strconv.ParseUint(a, 10, 16)
	if err != nil || lo == 0 {
		return 0, 0, fmt.Errorf("%q is not a port, 1 to 65535", a)
	}
	hi := lo
	if two {
		if hi, err = strconv.ParseUint(b, 10, 16); err != nil || hi < lo {
			return 0, 0, fmt.Errorf("%q is not a range of ports", s)
		}
	}
	return uint16(lo), int(hi-lo) + 1, nil
}

// maxPorts bounds how many ports one endpoint publishes: each is a socket and an element of a map.
const maxPorts = 8192

func (p Port) validate() error {
	field := "port " + p.String()
	switch n := p.count(); {
	case !slices.Contains([]string{"tcp", "udp", "sctp"}, p.protocol()):
		return fault(field, "protocol %q is not tcp, udp or sctp", p.Protocol)
	case p.Protocol == "sctp" && p.HostAddr.IsLoopback():
		return fault(field, "SCTP is not published on loopback addresses")
	case p.Container == 0:
		return fault(field, "the container's port is missing")
	case int(p.Container)+n-1 > 65535 || int(p.Host)+n-1 > 65535:
		return fault(field, "the range exceeds 65535")
	case n > 1 && p.Host == 0:
		return fault(field, "a range needs the host's ports")
	case p.HostAddr.IsValid() && (p.HostAddr.IsMulticast() || p.HostAddr.Zone() != "" || p.HostAddr.Is4In6()):
		return fault(field, "%v is not an address of the host", p.HostAddr)
	}
	return nil
}

// validatePorts judges ports that are published together.
func validatePorts(l []Port) error {
	var faults []error
	n := 0
	seen := map[string]Port{}
	for _, p := range l {
		if err := p.validate(); err != nil {
			faults = append(faults, err)
			continue
		}
		if n += p.count(); n > maxPorts {
			return errors.Join(append(faults, fault("Ports", "more than %d", maxPorts))...)
		}
		for _, one := range p.each() {
			if one.Host == 0 {
				continue
			}
			key := fmt.Sprint(one.protocol(), one.Host)
			if q, ok := seen[key]; ok && (!q.specific() || !p.specific() || q.HostAddr == p.HostAddr) {
				faults = append(faults, fault("port "+p.String(), "port %d of the host is given twice", one.Host))
				break
			}
			seen[key] = p
		}
	}
	return errors.Join(faults...)
}

// specific says that the port is published on one address of the host.
func (p Port) specific() bool { return p.HostAddr.IsValid() && !p.HostAddr.IsUnspecified() }

// each takes a range apart.
func (p Port) each() []Port {
	out := make([]Port, 0, p.count())
	for i := range uint16(p.count()) {
		q := p
		q.Protocol, q.Count, q.Container = p.protocol(), 0, p.Container+i
		if p.Host != 0 {
			q.Host = p.Host + i
		}
		out = append(out, q)
	}
	return out
}

// portKey and portAddr are the names under which a published port is recorded.
func portKey(p Port) string { return p.protocol() + "-" + strconv.Itoa(int(p.Host)) }

func portAddr(p Port) string {
	if p.specific() {
		return p.HostAddr.String()
	}
	if p.HostAddr.IsValid() {
		return "any" + map[bool]string{true: "4", false: "6"}[p.HostAddr.Is4()]
	}
	return "any"
}

// clash says that two addresses under which a port is published, as portAddr names them, are not apart.
func clash(a, b string) bool {
	if a == b || a == "any" || b == "any" {
		return true
	}
	for range 2 {
		if ip, err := netip.ParseAddr(b); err == nil && (a == "any4" && ip.Is4() || a == "any6" && ip.Is6()) {
			return true
		}
		a, b = b, a
	}
	return false
}
