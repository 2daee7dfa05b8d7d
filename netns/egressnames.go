package netns

import (
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// opening is what a name lets be reached at one address; a protocol or port of 0 is any.
type opening struct {
	addr  netip.Addr
	proto byte
	port  uint16
}

// namePolicy is what the policies of a container's endpoints say about names.
type namePolicy struct {
	endpoints []policed
	// open opens addresses for an endpoint.
	open func(id string, l []opening, d time.Duration) error
}

// policed is an endpoint; without a policy it lets every name be asked for.
type policed struct {
	id     string
	egress *Egress
}

// Bounds for an answer about a name: what comes from servers of the world is not to be trusted with our memory.
const (
	maxAnswers   = 32
	maxOpenings  = 1024
	minOpen      = 30 * time.Second
	maxOpen      = time.Hour
	openOverTime = time.Minute
)

// refuses says that a name may not be asked for: one policy denies it, or none lets it.
func (p *namePolicy) refuses(name string) bool {
	if p == nil {
		return false
	}
	open := false
	for _, e := range p.endpoints {
		if e.egress == nil {
			open = true
			continue
		}
		l, refused := e.egress.opens(name)
		if refused && e.egress.denies(name) {
			return true
		}
		open = open || !refused || len(l) > 0
	}
	return !open
}

// denies says that a name stands in Deny.
func (e *Egress) denies(name string) bool {
	for _, d := range e.Deny {
		if d.covers(name) {
			return true
		}
	}
	return false
}

// note opens the addresses of an answer before it is passed on. trusted says that it is about neighbours.
func (p *namePolicy) note(name string, answer []byte, trusted bool) error {
	if p == nil {
		return nil
	}
	var addrs []netip.Addr
	var d time.Duration
	for _, e := range p.endpoints {
		if e.egress == nil {
			continue
		}
		l, refused := e.egress.opens(name)
		if refused || len(l) == 0 {
			continue
		}
		if addrs == nil {
			if addrs, d = answered(answer); len(addrs) == 0 {
				return nil
			}
		}
		if all := openings(l, addrs, func(a netip.Addr) bool { return trusted || e.egress.believes(a) }); len(all) > 0 {
			if err := p.open(e.id, all, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// answered reads the addresses of an answer, and for how long they are opened.
func answered(msg []byte) (out []netip.Addr, d time.Duration) {
	var p dnsmessage.Parser
	if _, err := p.Start(msg); err != nil || p.SkipAllQuestions() != nil {
		return nil, 0
	}
	least := uint32(maxOpen / time.Second)
	for len(out) < maxAnswers {
		h, err := p.AnswerHeader()
		if err != nil {
			break
		}
		switch {
		case h.Type == dnsmessage.TypeA && h.Class == dnsmessage.ClassINET:
			r, err := p.AResource()
			if err != nil {
				return nil, 0
			}
			out = append(out, netip.AddrFrom4(r.A))
		case h.Type == dnsmessage.TypeAAAA && h.Class == dnsmessage.ClassINET:
			r, err := p.AAAAResource()
			if err != nil {
				return nil, 0
			}
			out = append(out, netip.AddrFrom16(r.AAAA))
		default:
			if p.SkipAnswer() != nil {
				return nil, 0
			}
			continue
		}
		least = min(least, h.TTL)
	}
	return out, max(minOpen, time.Duration(least)*time.Second) + openOverTime
}

// openings are what destinations open at addresses, each once.
func openings(l []Destination, addrs []netip.Addr, believe func(netip.Addr) bool) (out []opening) {
	seen := map[opening]bool{}
	add := func(o opening) {
		if !seen[o] && len(out) < maxOpenings {
			seen[o] = true
			out = append(out, o)
		}
	}
	for _, a := range addrs {
		if !believe(a) {
			continue
		}
		for _, d := range l {
			protos := []byte{protocolNumber(d.Protocol, a)}
			if d.Protocol == "" && d.Port != 0 {
				protos = []byte{6, 17, 132} // tcp, udp, sctp
			}
			for _, p := range protos {
				for port := int(d.Port); port <= int(d.last()); port++ {
					add(opening{a, p, uint16(port)})
				}
			}
		}
	}
	return out
}

// protocolNumber is the number of a protocol, 0 for all.
func protocolNumber(name string, a netip.Addr) byte {
	switch name {
	case "tcp":
		return 6
	case "udp":
		return 17
	case "sctp":
		return 132
	case "icmp":
		if a.Is6() {
			return 58
		}
		return 1
	}
	return 0
}
