package dbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Conn is a connection to a message bus, or directly to one program. It is for one goroutine at a time.
type Conn struct {
	f       *os.File
	serial  uint32
	signals []*Message // came while something else was awaited
	early   []byte     // came right behind the last line of the greeting
}

// maxSignals bounds how many signals wait; older ones are dropped.
const maxSignals = 256

// Dial connects to the first of the addresses that answers, and proves who the caller is by the credentials of the
// socket (the mechanism EXTERNAL). On a message bus [Conn.Hello] must come next. ctx bounds it.
func Dial(ctx context.Context, addresses string) (*Conn, error) {
	list := sockets(addresses)
	if len(list) == 0 {
		return nil, fmt.Errorf("no Unix socket in the address %q", addresses)
	}
	var faults []error
	for _, name := range list {
		c, err := dial(ctx, name)
		if err == nil {
			return c, nil
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}

func dial(ctx context.Context, name string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := connect(ctx, fd, name); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: name, Err: err}
	}
	c := &Conn{f: os.NewFile(uintptr(fd), name)}
	if err := c.within(ctx, c.authenticate); err != nil {
		c.Close()
		return nil, fmt.Errorf("log in at %s: %w", name, err)
	}
	return c, nil
}

// connect waits while the server's queue is full, for which there is no event.
func connect(ctx context.Context, fd int, name string) error {
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Close ends the connection.
func (c *Conn) Close() { _ = c.f.Close() }

// within runs f, whose reads and writes fail when ctx ends.
func (c *Conn) within(ctx context.Context, f func() error) error {
	if err := c.f.SetDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := f()
	if err != nil && ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// authenticate says which user the caller is, which the server compares with the socket's credentials. A server in
// another user namespace knows the caller by another number: then the caller leaves it to the server to look.
func (c *Conn) authenticate() error {
	uid := fmt.Sprintf("%x", strconv.Itoa(os.Geteuid()))
	answer, err := c.say("\x00AUTH EXTERNAL " + uid + "\r\n")
	if err == nil && !bytes.HasPrefix(answer, []byte("OK")) {
		answer, err = c.say("AUTH EXTERNAL\r\n")
		if err == nil && bytes.HasPrefix(answer, []byte("DATA")) {
			answer, err = c.say("DATA\r\n")
		}
	}
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(answer, []byte("OK")) {
		return fmt.Errorf("refused: %.60q", answer)
	}
	// systemd's own end of a connection may read BEGIN together with what follows it, and then does not look at that before more comes.
	// Therefore BEGIN goes with a question whose answer is awaited first. The answer itself, yes or no, means nothing here.
	_, c.early, err = c.ask("NEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
	return err
}

// say sends a line and reads one. The server says nothing unasked before BEGIN, so reading cannot take too much.
func (c *Conn) say(line string) ([]byte, error) {
	answer, _, err := c.ask(line)
	return answer, err
}

// ask writes text and reads a line, and what may have come behind it.
func (c *Conn) ask(text string) (line, rest []byte, err error) {
	if _, err := c.f.WriteString(text); err != nil {
		return nil, nil, err
	}
	var buf [512]byte
	n := 0
	for {
		k, err := c.f.Read(buf[n:])
		if err != nil {
			return nil, nil, err
		}
		n += k
		if i := bytes.Index(buf[:n], []byte("\r\n")); i >= 0 {
			return buf[:i], buf[i+2 : n], nil
		}
		if n == len(buf) {
			return nil, nil, ErrMalformed
		}
	}
}

// Hello registers at a message bus.
func (c *Conn) Hello(ctx context.Context) error {
	_, err := c.Call(ctx, Message{Destination: "org.freedesktop.DBus", Path: "/org/freedesktop/DBus",
		Interface: "org.freedesktop.DBus", Member: "Hello"}, nil)
	return err
}

// Call calls a method and returns its answer. A refusal is a [*RemoteError]. Signals that come meanwhile are kept for
// [Conn.Signal].
func (c *Conn) Call(ctx context.Context, m Message, body []byte) (reply *Message, err error) {
	err = c.within(ctx, func() error {
		if err := c.send(&m, 0, body); err != nil {
			return err
		}
		for {
			reply, err = c.receive()
			switch {
			case err != nil:
				return err
			case reply.Type == TypeSignal:
				c.signals = append(c.signals[max(0, len(c.signals)-maxSignals+1):], reply)
			case reply.ReplySerial != m.Serial:
			case reply.Type == TypeError:
				return remoteError(reply)
			case reply.Type == TypeReturn:
				return nil
			}
		}
	})
	return reply, err
}

// Tell calls a method and awaits no answer.
func (c *Conn) Tell(ctx context.Context, m Message, body []byte) error {
	return c.within(ctx, func() error { return c.send(&m, noReply, body) })
}

// Signal waits for a signal that match accepts.
func (c *Conn) Signal(ctx context.Context, match func(*Message) bool) error {
	for _, m := range c.signals {
		if match(m) {
			return nil
		}
	}
	c.signals = nil
	return c.within(ctx, func() error {
		for {
			m, err := c.receive()
			if err != nil {
				return err
			}
			if m.Type == TypeSignal && match(m) {
				return nil
			}
		}
	})
}

func (c *Conn) send(m *Message, flags byte, body []byte) error {
	c.serial++
	m.Serial = c.serial
	_, err := c.f.Write(m.marshal(flags, body))
	return err
}

// Read reads what came early, then the socket.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.f.Read(p)
}

func (c *Conn) receive() (*Message, error) {
	head := make([]byte, fixedSize, 512)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	_, _, total, err := sizes(head)
	if err != nil {
		return nil, err
	}
	b := append(head, make([]byte, total-fixedSize)...)
	if _, err := io.ReadFull(c, b[fixedSize:]); err != nil {
		return nil, err
	}
	return parse(b)
}
