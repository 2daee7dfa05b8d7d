package netns

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// proxy carries connections from a port of the host to the container: those from the host itself to its loopback addresses.
type proxy struct {
	target netip.AddrPort
	dial   func(ctx context.Context, network, address string) (net.Conn, error)

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
}

// Limits of a proxy. A hostile container can make connections hang, so their number is bounded.
const (
	maxProxied   = 4096
	dialTimeout  = 10 * time.Second
	datagramIdle = 90 * time.Second
	maxDatagram  = 64 << 10
)

// newProxy serves a reservation, whose sockets it takes over.
func newProxy(r *reservation, target netip.AddrPort, dial func(context.Context, string, string) (net.Conn, error)) *proxy {
	p := &proxy{target: target, dial: dial, open: map[io.Closer]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, l := range r.streams {
		p.begin(l, func() { p.streams(l) })
	}
	for _, c := range r.packets {
		p.begin(c, func() { p.datagrams(c) })
	}
	return p
}

// begin runs f, which ends when c is closed; false if there is no place any more.
func (p *proxy) begin(c io.Closer, f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.open) >= maxProxied {
		c.Close()
		return false
	}
	p.open[c] = struct{}{}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		f()
		c.Close()
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
	}()
	return true
}

// Close ends all connections and waits for their goroutines.
func (p *proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.cancel()
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

func (p *proxy) streams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			select { // too many open files, say
			case <-time.After(50 * time.Millisecond):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		p.begin(c, func() { p.stream(c.(*net.TCPConn)) })
	}
}

// stream copies both ways; on Linux package net has the kernel do it (splice(2)).
func (p *proxy) stream(c *net.TCPConn) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	d, err := p.dial(ctx, "tcp", p.target.String())
	cancel()
	if err != nil {
		_ = c.SetLinger(0) // the client sees a reset, as of a port at which nobody listens
		return
	}
	to := d.(*net.TCPConn)
	stop := context.AfterFunc(p.ctx, func() { to.Close() })
	defer stop()
	defer to.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(c, to)
		_ = c.CloseWrite()
	}()
	_, _ = io.Copy(to, c)
	_ = to.CloseWrite()
	<-back
}

// datagrams keeps a socket for each client, so that answers find their way.
func (p *proxy) datagrams(c net.PacketConn) {
	var mu sync.Mutex
	clients := map[string]net.Conn{}
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			continue // an error that ICMP reported
		}
		key := from.String()
		mu.Lock()
		to := clients[key]
		mu.Unlock()
		if to == nil {
			if to, err = p.dial(p.ctx, "udp", p.target.String()); err != nil {
				continue
			}
			mu.Lock()
			clients[key] = to
			mu.Unlock()
			if !p.begin(to, func() {
				answers(c, to, from)
				mu.Lock()
				delete(clients, key)
				mu.Unlock()
			}) {
				mu.Lock()
				delete(clients, key)
				mu.Unlock()
				continue
			}
		}
		_ = to.SetReadDeadline(time.Now().Add(datagramIdle))
		_, _ = to.Write(buf[:n])
	}
}

// answers carries datagrams back until none has come for a while.
func answers(c net.PacketConn, from net.Conn, to net.Addr) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		_ = from.SetReadDeadline(time.Now().Add(datagramIdle))
		if _, err := c.WriteTo(buf[:n], to); err != nil {
			return
		}
	}
}
