package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers one container's queries. Its sockets are in the container's namespace, itself and what it asks for
// others are in the host's.
type nameServer struct {
	zone     zone
	upstream func() []netip.AddrPort // nil: nothing is forwarded
	policy   *namePolicy             // nil: all names may be asked for
	dial     func(ctx context.Context, network, address string) (net.Conn, error)

	idle time.Duration // for how long a connection may say nothing

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{} // for queries that are forwarded, and connections

	mu   sync.Mutex
	open map[io.Closer]struct{} // nil once closed
}

// Limits for a hostile container.
const (
	maxForwarded = 128
	upstreamTime = 3 * time.Second
	streamIdle   = 10 * time.Second
	maxDatagram  = 64 << 10
	afterError   = 10 * time.Millisecond // a socket that fails is asked again, but not at once: the failure may last
)

func newNameServer(z zone, upstream func() []netip.AddrPort, dial func(context.Context, string, string) (net.Conn, error)) *nameServer {
	s := &nameServer{zone: z, upstream: upstream, dial: dial, idle: streamIdle, slots: make(chan struct{}, maxForwarded), open: map[io.Closer]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// run serves both sockets, which it takes over.
func (s *nameServer) run(packets net.PacketConn, streams net.Listener) {
	s.begin(packets, func() { s.packets(packets) })
	s.begin(streams, func() { s.streams(streams) })
}

func (s *nameServer) begin(c io.Closer, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		c.Close()
		return
	}
	s.open[c] = struct{}{}
	s.wg.Go(func() {
		f()
		c.Close()
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
	})
}

// Close ends the server and waits for its goroutines.
func (s *nameServer) Close() error {
	s.mu.Lock()
	s.cancel()
	for c := range s.open {
		c.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// acquire takes a slot if there is one.
func (s *nameServer) acquire() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *nameServer) release() { <-s.slots }

// pause waits, and says that ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (s *nameServer) packets(c net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !pause(s.ctx, afterError) {
				return
			}
			continue
		}
		q, msg := s.local(buf[:n], false)
		if msg != nil {
			_, _ = c.WriteTo(msg, from)
			continue
		}
		if q == nil {
			continue
		}
		if !s.acquire() {
			_, _ = c.WriteTo(q.reply(dnsmessage.RCodeServerFailure, false, nil), from)
			continue
		}
		raw := append([]byte(nil), buf[:n]...)
		s.wg.Go(func() {
			defer s.release()
			_, _ = c.WriteTo(s.forward(q, raw, "udp"), from)
		})
	}
}

// local answers what needs nobody else. Without an answer the query is to be forwarded; without either it is dropped.
func (s *nameServer) local(raw []byte, tcp bool) (*query, []byte) {
	q, code, err := parseQuery(raw)
	if err != nil {
		return nil, nil
	}
	if code != dnsmessage.RCodeSuccess {
		return &q, q.reply(code, tcp, nil)
	}
	if msg, done := q.answer(s.zone, tcp); done {
		return &q, s.opened(&q, msg, tcp, true)
	}
	if s.policy.refuses(q.name) {
		return &q, q.reply(dnsmessage.RCodeNameError, tcp, nil)
	}
	if s.upstream == nil {
		return &q, q.reply(dnsmessage.RCodeRefused, tcp, nil)
	}
	return &q, nil
}

// opened returns an answer once what it names may be reached.
func (s *nameServer) opened(q *query, msg []byte, tcp, trusted bool) []byte {
	if s.policy.note(q.name, msg, trusted) != nil {
		return q.reply(dnsmessage.RCodeServerFailure, tcp, nil)
	}
	return msg
}

// streams serves TCP: a connection carries queries one after the other.
func (s *nameServer) streams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !pause(s.ctx, afterError) { // too many open files, say
				return
			}
			continue
		}
		if !s.acquire() {
			c.Close()
			continue
		}
		s.begin(c, func() {
			defer s.release()
			s.stream(c)
		})
	}
}

func (s *nameServer) stream(c net.Conn) {
	for {
		_ = c.SetDeadline(time.Now().Add(s.idle))
		raw, err := readMessage(c)
		if err != nil {
			return
		}
		q, msg := s.local(raw, true)
		if q == nil {
			return
		}
		if msg == nil {
			msg = s.forward(q, raw, "tcp")
		}
		_ = c.SetDeadline(time.Now().Add(s.idle))
		if writeMessage(c, msg) != nil {
			return
		}
	}
}

// readMessage reads a message with its length before it (RFC 1035, 4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(n[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

func writeMessage(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}

// forward asks the host's resolvers, one after the other, under an id of its own and from a port that the kernel chooses. What
// comes back is passed on as it is.
func (s *nameServer) forward(q *query, raw []byte, network string) []byte {
	for _, server := range s.upstream() {
		id := uint16(rand.Uint32())
		binary.BigEndian.PutUint16(raw, id)
		answer, err := s.ask(q, raw, id, network, server)
		if err == nil {
			binary.BigEndian.PutUint16(answer, q.header.ID)
			return s.opened(q, answer, network == "tcp", false)
		}
		if s.ctx.Err() != nil {
			break
		}
	}
	return q.reply(dnsmessage.RCodeServerFailure, network == "tcp", nil)
}

func (s *nameServer) ask(q *query, raw []byte, id uint16, network string, server netip.AddrPort) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, upstreamTime)
	defer cancel()
	c, err := s.dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if network == "tcp" {
		if err := writeMessage(c, raw); err != nil {
			return nil, err
		}
		answer, err := readMessage(c)
		if err == nil && !matches(answer, id, q.question) {
			err = errResponse
		}
		return answer, err
	}
	if _, err := c.Write(raw); err != nil {
		return nil, err
	}
	buf := make([]byte, maxDatagram)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if matches(buf[:n], id, q.question) { // others may be forged
			return buf[:n], nil
		}
	}
}
