package netns

import (
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// naming are this program's servers of names by the network namespace in which they answer: a container that is connected to further networks while it
// runs has one already.
var naming struct {
	mu    sync.Mutex
	zones map[netnsKey]*netZone
}

// netnsKey is the file of a namespace. It is no other's as long as a socket of the server keeps the namespace.
type netnsKey struct{ dev, ino uint64 }

func keyOf(netns *os.File) (netnsKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(netns.Fd()), &st); err != nil {
		return netnsKey{}, os.NewSyscallError("fstat", err)
	}
	return netnsKey{uint64(st.Dev), st.Ino}, nil
}

// namedServer is a server as a service of its connection.
type namedServer struct {
	*nameServer
	key netnsKey
}

// nowNamed notes the server of a namespace.
func nowNamed(key netnsKey, s *nameServer, z *netZone) namedServer {
	naming.mu.Lock()
	defer naming.mu.Unlock()
	if naming.zones == nil {
		naming.zones = map[netnsKey]*netZone{}
	}
	naming.zones[key] = z
	return namedServer{s, key}
}

// Close forgets the server before its sockets are closed.
func (n namedServer) Close() error {
	naming.mu.Lock()
	delete(naming.zones, n.key)
	naming.mu.Unlock()
	return n.nameServer.Close()
}

// lateViews are networks that a running container was connected to, in the zone of its server.
type lateViews struct {
	zone  *netZone
	views []*view
}

// nameLate has the server that answers in the namespace know the neighbours on the connection's networks too, until Detach. Without one of this
// program's there is nothing to do.
func (c *Connection) nameLate(t Target) error {
	key, err := keyOf(t.Netns)
	if err != nil {
		return err
	}
	naming.mu.Lock()
	zone := naming.zones[key]
	naming.mu.Unlock()
	if zone == nil {
		return nil
	}
	l := lateViews{zone, c.zone().views}
	zone.mu.Lock()
	zone.views = append(zone.views, l.views...)
	zone.mu.Unlock()
	c.services = append(c.services, l)
	return nil
}

func (l lateViews) Close() error {
	l.zone.mu.Lock()
	defer l.zone.mu.Unlock()
	l.zone.views = slices.DeleteFunc(l.zone.views, func(v *view) bool { return slices.Contains(l.views, v) })
	return nil
}
