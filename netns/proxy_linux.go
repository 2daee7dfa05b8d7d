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
)

// newProxy serves a reservation, whose sockets it takes over.
func newProxy(r *reservation, target netip.AddrPort, dial func(context.Context, string, string) (net.Conn, error)) *proxy {
	p := &proxy{target: target, dial: dial, open: map[io.Closer]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, l := range r.streams {
		p.begin(l, func() { p.streams(l) })
	}
	for _, c := range r.packets {
		p.begin(c, func() { p.datagrams(c.(datagramSocket)) })
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
			if !pause(p.ctx, afterError) { // too many open files, say
				return
			}
			continue
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

// datagramSocket is what is used of a [net.UDPConn].
type datagramSocket interface {
	ReadMsgUDPAddrPort(b, control []byte) (n, controln, flags int, from netip.AddrPort, err error)
	WriteMsgUDPAddrPort(b, control []byte, to netip.AddrPort) (n, controln int, err error)
}

// client is who sends datagrams, and to which address of the host.
type client struct {
	from netip.AddrPort
	at   netip.Addr
}

// datagrams keeps a socket for each client, so that answers find their way.
func (p *proxy) datagrams(c datagramSocket) {
	var mu sync.Mutex
	clients := map[client]net.Conn{}
	buf, control := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, controln, _, from, err := c.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			if !pause(p.ctx, afterError) {
				return
			}
			continue
		}
		who := client{from, arrivedAt(control[:controln])}
		mu.Lock()
		to := clients[who]
		mu.Unlock()
		if to == nil {
			if to, err = p.dial(p.ctx, "udp", p.target.String()); err != nil {
				continue
			}
			mu.Lock()
			clients[who] = to
			mu.Unlock()
			forget := func() {
				mu.Lock()
				delete(clients, who)
				mu.Unlock()
			}
			if !p.begin(to, func() { answers(c, to, who); forget() }) {
				forget()
				continue
			}
		}
		_ = to.SetReadDeadline(time.Now().Add(datagramIdle))
		_, _ = to.Write(buf[:n])
	}
}

// answers carries datagrams back until none has come for a while.
func answers(c datagramSocket, from net.Conn, to client) {
	buf, control := make([]byte, maxDatagram), sentFrom(to.at)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		_ = from.SetReadDeadline(time.Now().Add(datagramIdle))
		if _, _, err := c.WriteMsgUDPAddrPort(buf[:n], control, to.from); err != nil {
			return
		}
	}
}
