package dbus

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A server that reads the end of the greeting late finds nothing behind it, for systemd would not look at that; and what a server sends
// right behind its own last line is not lost.
func TestGreeting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	greeting := make(chan string, 1)
	go func() {
		s, err := l.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		b := make([]byte, 4096)
		if _, err := s.Read(b); err != nil { // AUTH
			return
		}
		_, _ = s.Write([]byte("OK 0123\r\n"))
		time.Sleep(50 * time.Millisecond) // the client has all the time to say too much
		n, _ := s.Read(b)
		greeting <- string(b[:n])
		m := Message{Serial: 1, Path: "/x", Interface: "org.x.Y", Member: "Early"}
		signal := m.marshal(noReply, nil)
		signal[1] = TypeSignal
		_, _ = s.Write(append([]byte("AGREE_UNIX_FD\r\n"), signal...))
		_, _ = s.Read(b)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := Dial(ctx, "unix:path="+Escape(path))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Tell(ctx, Message{Destination: "org.x", Path: "/x", Interface: "org.x.Y", Member: "Do"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := <-greeting; got != "NEGOTIATE_UNIX_FD\r\nBEGIN\r\n" {
		t.Errorf("%q", got)
	}
	early := false
	_ = c.Signal(ctx, func(m *Message) bool { early = strings.HasPrefix(m.Member, "Early"); return true })
	if !early {
		t.Error("the first signal is lost")
	}
}
