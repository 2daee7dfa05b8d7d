package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// Conn is a conversation with the kernel about one network namespace, which it keeps alive. It is for one goroutine at a time.
type Conn struct {
	fd  int
	seq uint32
	buf []byte

	interrupted bool // the list that is being read has changed
}

// patience is how long the kernel may take to answer, in seconds. It answers before it returns from the call that asks.
const patience = 10

// Dial begins a conversation about the calling thread's network namespace.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return &Conn{fd: fd, buf: make([]byte, 64<<10)}, nil
}

// Close ends the conversation.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// ask sends one request and hands its answers to f, until the kernel has acknowledged it. What it refuses is an errno.
func (c *Conn) ask(kind, flags uint16, body []byte, f func(kind uint16, data []byte)) error {
	c.seq++
	b := binary.NativeEndian.AppendUint32(make([]byte, 0, unix.SizeofNlMsghdr+len(body)), uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = append(binary.NativeEndian.AppendUint32(b, 0), body...)
	err := linux.Retry(func() error { return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
	if err != nil {
		return os.NewSyscallError("sendto", err)
	}
	c.interrupted = false
	for {
		done, err := c.receive(f)
		if err != nil {
			return err
		}
		if done && c.interrupted {
			return errInterrupted
		}
		if done {
			return nil
		}
	}
}

// errInterrupted says that a list changed while it was told.
var errInterrupted = errors.New("rtnetlink: the list changed while it was read")

// receive reads one datagram of answers, and reports whether it was the last.
func (c *Conn) receive(f func(kind uint16, data []byte)) (done bool, err error) {
	n, err := linux.RetryFD(func() (int, error) {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		return n, err
	})
	if err != nil {
		return false, os.NewSyscallError("recvfrom", err)
	}
	if n > len(c.buf) {
		return false, fmt.Errorf("rtnetlink: an answer of %d bytes: %w", n, unix.EMSGSIZE)
	}
	list, err := syscall.ParseNetlinkMessage(c.buf[:n])
	if err != nil {
		return false, fmt.Errorf("rtnetlink: %w", err)
	}
	for i := range list {
		h := &list[i].Header
		if h.Seq != c.seq { // of a request whose answer did not come in time
			continue
		}
		c.interrupted = c.interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
		switch h.Type {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return true, errnoOf(list[i].Data)
		}
		f(h.Type, list[i].Data)
	}
	return false, nil
}

// errnoOf is what an NLMSG_ERROR says; 0 acknowledges.
func errnoOf(data []byte) error {
	if len(data) < 4 {
		return fmt.Errorf("rtnetlink: an answer that is cut off: %w", unix.EPROTO)
	}
	if errno := -int32(binary.NativeEndian.Uint32(data)); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// attributes calls f for each attribute in b.
func attributes(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofRtAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// appendAttribute appends an attribute to the body of a message.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
