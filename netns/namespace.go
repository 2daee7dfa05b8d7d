package netns

import (
	"context"
	"net"
	"os"
)

// Namespace is an open network namespace. It lives as long as it is open, a process is in it, or it has a name. Its methods
// may be called by many goroutines; Close by one, at last.
type Namespace struct {
	file *os.File
}

// File returns the file that stands for the namespace, which stays the Namespace's: for namespaces.JoinFile, or
// SysProcAttr.
func (n *Namespace) File() *os.File { return n.file }

// Close lets go of the namespace. If nothing else keeps it, the kernel removes it with all its devices. Closing again is
// harmless.
func (n *Namespace) Close() error {
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.file = nil
	return err
}

// Dial connects as [net.Dialer.DialContext] does, from inside the namespace; the connection belongs to it for good. It can be
// the DialContext of an http.Transport. The host of the address is an IP address, or a name of /etc/hosts of the host. Its zone
// (fe80::1%eth0) is the name or number of a device inside; the error matches syscall.ENODEV if there is none.
//
// Who may not enter the namespace by [Namespace.Do], but made the user namespace that owns it, gets a socket from a short-lived
// process that enters both: so Dial, Listen, ListenPacket and [Namespace.ListenFrames] work for ordinary users, for what [New] made and for the
// namespaces of their own containers.
func (n *Namespace) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	resolved, err := resolve(ctx, network, address)
	if err != nil {
		return nil, err
	}
	err = n.orBySocket(func() error {
		at, err := numberZone("dial", network, resolved)
		if err == nil {
			c, err = dial(ctx, network, at)
		}
		return err
	}, func() (err error) {
		c, err = n.dialSocket(ctx, network, resolved)
		return err
	})
	return c, err
}

// Listen listens as [net.Listen] does, inside the namespace. See [Namespace.Dial].
func (n *Namespace) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = n.orBySocket(func() error {
		at, err := numberZone("listen", network, address)
		if err == nil {
			l, err = new(net.ListenConfig).Listen(ctx, network, at)
		}
		return err
	}, func() (err error) {
		l, err = n.listenSocket(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket listens as [net.ListenPacket] does, inside the namespace. See [Namespace.Dial].
func (n *Namespace) ListenPacket(ctx context.Context, network, address string) (c net.PacketConn, err error) {
	err = n.orBySocket(func() error {
		at, err := numberZone("listen", network, address)
		if err == nil {
			c, err = new(net.ListenConfig).ListenPacket(ctx, network, at)
		}
		return err
	}, func() (err error) {
		c, err = n.listenPacketSocket(ctx, network, address)
		return err
	})
	return c, err
}

// resolve makes sure that the address needs no look-up, for which package net would use other threads.
func resolve(ctx context.Context, network, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || net.ParseIP(host) != nil {
		return address, nil // package net judges it
	}
	l, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return net.JoinHostPort(l[0], port), nil
}

// dial connects. With a single address package net makes the socket on the calling goroutine.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
}
