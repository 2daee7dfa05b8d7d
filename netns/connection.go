package netns

import (
	"net"
	"os"
)

// Connection is a container's place in its networks. It is an Attachment of caisson, also a durable one: another program can
// undo it, by [Owner].
type Connection struct {
	nets *Networks
	req  Request
	host *BridgeConfig // where the host side is
	bare bool          // neither files nor names
	to   *joining      // of what is made by Join

	waiting bool // in a pool: it has no names yet

	rec     record
	entry   uint64 // in the journal; 0 once it is struck out
	durable bool   // recorded elsewhere
	eps     []*epState
	states  []*netState
	bridges []bridgePort // of those networks that have one, while attaching

	obstacles []Obstacle
	unseen    error // why obstacles could not be looked for

	reserved []*reservation
	services []service
	untold   []*Overlay // whose other hosts Detach has not told yet that containers have left
}

// bridgePort is a network's bridge as it was found.
type bridgePort struct {
	index int
	up    bool // it has a carrier
}

// service is something of this program's that a connection needs, such as a proxy.
type service interface{ Close() error }

// reservation holds a port of the host.
type reservation struct {
	port    Port
	streams []net.Listener
	packets []net.PacketConn
	held    []*os.File // bound, and nothing is received
}

func (r *reservation) Close() error {
	for _, l := range r.streams {
		l.Close()
	}
	for _, c := range r.packets {
		c.Close()
	}
	for _, f := range r.held {
		f.Close()
	}
	return nil
}

// Status tells about the endpoints.
func (c *Connection) Status() []Status {
	var out []Status
	for _, e := range c.eps {
		out = append(out, e.status())
	}
	return out
}
