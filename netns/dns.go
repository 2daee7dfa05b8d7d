package netns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// zone knows the names of a container's networks.
type zone interface {
	// lookup returns the addresses of a name in lower case without a dot at its end; known says that there is such a name.
	lookup(name string) (addrs []netip.Addr, known bool)
	// reverse returns the name of an address; ours says that no other server can know about it.
	reverse(a netip.Addr) (name string, ours bool)
}

// ttl is for how long answers may be kept, in seconds: containers come and go.
const ttl = 5

// Sizes of messages over UDP: what everybody takes, and what is sent at most to who says that it takes more (RFC 6891).
const (
	plainSize = 512
	largeSize = 1232
)

// query is a question that was understood.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	name     string // in lower case, without the dot at the end
	size     int    // of the answer over UDP
	extended bool   // the asker takes EDNS
}

// parseQuery reads a message from inside, which is hostile. With an error the message is dropped; a code other than success is
// the answer.
func parseQuery(msg []byte) (q query, code dnsmessage.RCode, err error) {
	var p dnsmessage.Parser
	if q.header, err = p.Start(msg); err != nil {
		return q, 0, err
	}
	if q.header.Response { // an answer to an answer would go on for ever
		return q, 0, errResponse
	}
	if q.header.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, nil
	}
	if q.question, err = p.Question(); err != nil {
		return q, dnsmessage.RCodeFormatError, nil
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return q, dnsmessage.RCodeFormatError, nil
	}
	q.name = strings.ToLower(strings.TrimSuffix(q.question.Name.String(), "."))
	q.size = plainSize
	if p.SkipAllAnswers() == nil && p.SkipAllAuthorities() == nil {
		for {
			h, err := p.AdditionalHeader()
			if err != nil {
				break
			}
			if h.Type == dnsmessage.TypeOPT {
				q.extended, q.size = true, min(largeSize, max(plainSize, int(h.Class)))
			}
			if p.SkipAdditional() != nil {
				break
			}
		}
	}
	return q, dnsmessage.RCodeSuccess, nil
}

type dnsError string

func (e dnsError) Error() string { return string(e) }

const errResponse = dnsError("a response instead of a query")

// answer answers from the zone; done is false for what it does not know about.
func (q *query) answer(z zone, tcp bool) (msg []byte, done bool) {
	if q.question.Class != dnsmessage.ClassINET && q.question.Class != dnsmessage.ClassANY {
		return nil, false
	}
	if a, ok := reverseName(q.name); ok {
		name, ours := z.reverse(a)
		switch {
		case name == "" && !ours:
			return nil, false
		case name == "":
			return q.reply(dnsmessage.RCodeNameError, tcp, nil), true
		}
		return q.reply(dnsmessage.RCodeSuccess, tcp, func(b *dnsmessage.Builder, h dnsmessage.ResourceHeader) error {
			n, err := dnsmessage.NewName(name + ".")
			if err != nil || q.question.Type != dnsmessage.TypePTR && q.question.Type != dnsmessage.TypeALL {
				return err
			}
			return b.PTRResource(h, dnsmessage.PTRResource{PTR: n})
		}), true
	}
	addrs, known := z.lookup(q.name)
	if !known {
		return nil, false
	}
	// Round robin: the first of several answers is what most programs use.
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return q.reply(dnsmessage.RCodeSuccess, tcp, func(b *dnsmessage.Builder, h dnsmessage.ResourceHeader) error {
		for _, a := range addrs {
			var err error
			switch all := q.question.Type == dnsmessage.TypeALL; {
			case a.Is4() && (all || q.question.Type == dnsmessage.TypeA):
				err = b.AResource(h, dnsmessage.AResource{A: a.As4()})
			case a.Is6() && (all || q.question.Type == dnsmessage.TypeAAAA):
				err = b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()})
			}
			if err != nil {
				return err
			}
		}
		return nil
	}), true
}

// reply builds an answer. What is too long for the asker becomes one that says so, and is asked for again over TCP.
func (q *query) reply(code dnsmessage.RCode, tcp bool, fill func(*dnsmessage.Builder, dnsmessage.ResourceHeader) error) []byte {
	msg, err := q.build(code, false, fill)
	limit := q.size
	if tcp {
		limit = 65535
	}
	if err == nil && len(msg) > max(limit, plainSize) {
		msg, err = q.build(code, true, nil)
	}
	if err != nil {
		msg, _ = q.build(dnsmessage.RCodeServerFailure, false, nil)
	}
	return msg
}

func (q *query) build(code dnsmessage.RCode, truncated bool, fill func(*dnsmessage.Builder, dnsmessage.ResourceHeader) error) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, plainSize), dnsmessage.Header{ID: q.header.ID, Response: true, OpCode: q.header.OpCode,
		Authoritative: fill != nil, Truncated: truncated, RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, RCode: code})
	b.EnableCompression()
	if q.question.Name.Length > 0 {
		if err := b.StartQuestions(); err != nil {
			return nil, err
		}
		if err := b.Question(q.question); err != nil {
			return nil, err
		}
	}
	if fill != nil {
		if err := b.StartAnswers(); err != nil {
			return nil, err
		}
		if err := fill(&b, dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}); err != nil {
			return nil, err
		}
	}
	if q.extended {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(largeSize, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// reverseName reads the name under which an address is looked up: 4.3.2.1.in-addr.arpa, or 32 digits and ip6.arpa.
func reverseName(name string) (netip.Addr, bool) {
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		a, err := netip.ParseAddr(v4)
		if err != nil || !a.Is4() {
			return netip.Addr{}, false
		}
		b := a.As4()
		return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), true
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(v6) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		d := strings.IndexByte("0123456789abcdef", v6[2*i])
		if d < 0 || i < 31 && v6[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(d) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

// matches says that a message is the answer to a question that was sent under id: from whoever it comes, it must fit both.
func matches(answer []byte, id uint16, q dnsmessage.Question) bool {
	if len(answer) < 12 || binary.BigEndian.Uint16(answer) != id {
		return false
	}
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil || !h.Response {
		return false
	}
	got, err := p.Question()
	return err == nil && got.Type == q.Type && got.Class == q.Class && strings.EqualFold(got.Name.String(), q.Name.String())
}
