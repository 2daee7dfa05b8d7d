package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/caisson-go/caisson/netns"
)

// The world.
var (
	api   = netip.MustParseAddr("192.0.2.10")
	evil  = netip.MustParseAddr("192.0.2.66")
	names = netip.MustParseAddr("192.0.2.53")
)

// world is everything outside of the container, the host included.
type world struct {
	host  *netns.Namespace
	state string
	undo  []func(context.Context) error // in reverse order
}

// unrecorded is for what ends with the program by itself: nobody has to undo it.
type unrecorded struct{}

func (unrecorded) Add(string, int, []byte) (uint64, error) { return 1, nil }
func (unrecorded) Done(uint64) error                       { return nil }

func prefixes(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(ctx))
		}
	}()
	if w.state, err = os.MkdirTemp("", "caisson-egress-"); err != nil {
		return nil, err
	}
	w.undo = append(w.undo, func(context.Context) error { return os.RemoveAll(w.state) })
	internet, err := w.namespace()
	if err != nil {
		return nil, err
	}
	wan, err := netns.NewBridge(netns.BridgeConfig{Name: "wan", Host: internet, Subnets: prefixes("192.0.2.0/24"), StateDir: w.state, Journal: unrecorded{}})
	if err != nil {
		return nil, err
	}
	join := func(addr netip.Addr) (*netns.Namespace, error) {
		ns, err := w.namespace()
		if err != nil {
			return nil, err
		}
		c, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: wan, Addresses: []netip.Addr{addr}}}}).Connect(ctx, ns, "")
		if err == nil {
			w.undo = append(w.undo, c.Detach)
		}
		return ns, err
	}
	if w.host, err = join(netip.MustParseAddr("192.0.2.2")); err != nil {
		return nil, err
	}
	for addr, ports := range map[netip.Addr][]string{api: {":80", ":8080"}, evil: {":80"}} {
		ns, err := join(addr)
		if err != nil {
			return nil, err
		}
		for _, port := range ports {
			l, err := ns.Listen(ctx, "tcp4", port)
			if err != nil {
				return nil, err
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })}
			go func() { _ = s.Serve(l) }()
			w.undo = append(w.undo, func(context.Context) error { return s.Close() })
		}
	}
	ns, err := join(names)
	if err != nil {
		return nil, err
	}
	p, err := ns.ListenPacket(ctx, "udp4", ":53")
	if err != nil {
		return nil, err
	}
	go serveNames(p)
	w.undo = append(w.undo, func(context.Context) error { return p.Close() })
	return w, nil
}

func (w *world) namespace() (*netns.Namespace, error) {
	ns, err := netns.New()
	if err == nil {
		w.undo = append(w.undo, func(context.Context) error { return ns.Close() })
	}
	return ns, err
}

func (w *world) close(ctx context.Context) error {
	var faults []error
	for i := len(w.undo) - 1; i >= 0; i-- {
		faults = append(faults, w.undo[i](ctx))
	}
	return errors.Join(faults...)
}

// serveNames answers for the world's names; all below evil.example.net exist, and whoever has the domain reads what is asked for.
func serveNames(c net.PacketConn) {
	b := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Answers, m.Additionals = true, nil, nil
		var a netip.Addr
		switch name := strings.ToLower(q.Name.String()); {
		case name == "api.example.org.":
			a = api
		case strings.HasSuffix(name, "evil.example.net."):
			a = evil
		default:
			m.RCode = dnsmessage.RCodeNameError
		}
		if a.IsValid() && q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: a.As4()}}}
		}
		if out, err := m.Pack(); err == nil {
			_, _ = c.WriteTo(out, from)
		}
	}
}
