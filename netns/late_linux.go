package netns

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// naming are this program's servers of names by the network namespace in which they answer: a container that is connected to further networks while it
// runs has one already. Those of other programs, such as a monitor, are told by a file (see [store.noteLate]).
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

// nameLate has the server that answers in the namespace, if there is one, know the neighbours on the connection's networks too, until Detach.
func (c *Connection) nameLate(ctx context.Context, t Target) error {
	key, err := keyOf(t.Netns)
	if err != nil {
		return err
	}
	naming.mu.Lock()
	zone := naming.zones[key]
	naming.mu.Unlock()
	if zone == nil {
		return c.nameElsewhere(ctx, t)
	}
	l := lateViews{zone, c.zone().views}
	zone.mu.Lock()
	zone.views = append(zone.views, l.views...)
	zone.mu.Unlock()
	c.services = append(c.services, l)
	return nil
}

// nameElsewhere tells a server of another program's.
func (c *Connection) nameElsewhere(ctx context.Context, t Target) error {
	var inside uint64
	served := false
	err := (&Namespace{t.Netns}).Do(func() (err error) {
		if served = servedHere(); served {
			inside, err = cookie()
		}
		return err
	})
	if !served || err != nil {
		return err
	}
	return c.host.inHost(func() error {
		s, err := reopenStore(ctx, c.rec.StateDir, c.host.StateDir, c.rec.Host)
		if err != nil {
			return err
		}
		defer s.close()
		for _, e := range c.eps {
			e.Late = inside
			if err := errors.Join(s.saveEndpoint(e), s.noteLate(e)); err != nil {
				return &Error{Op: "tell the server of names about network", Object: e.Network, Err: err}
			}
		}
		return nil
	})
}

// servedHere finds out whether anything takes connections where a server of names does, in the calling thread's namespace. What cannot be told at once may.
func servedHere() bool {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer unix.Close(s)
	switch unix.Connect(s, &unix.SockaddrInet4{Port: 53, Addr: serverAddr.As4()}) {
	case nil:
		return true
	case unix.EINPROGRESS:
		v, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_ERROR)
		return err != nil || v == 0
	}
	return false
}

func (l lateViews) Close() error {
	l.zone.mu.Lock()
	defer l.zone.mu.Unlock()
	l.zone.views = slices.DeleteFunc(l.zone.views, func(v *view) bool { return slices.Contains(l.views, v) })
	return nil
}

// lateDir is where the endpoints stand that a running container has got since it has a server of names; the number is its namespace's.
func lateDir(dir string, inside uint64) string {
	return filepath.Join(dir, "late", strconv.FormatUint(inside, 10))
}

// noteLate writes down for a server of another program's that the endpoint is one more of its container's. The endpoint is recorded before.
func (s *store) noteLate(e *epState) error {
	dir := lateDir(s.dir, e.Late)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, e.ID), []byte(e.Network))
}

func (s *store) forgetLate(e *epState) error {
	if e.Late == 0 {
		return nil
	}
	dir := lateDir(s.dir, e.Late)
	err := os.Remove(filepath.Join(dir, e.ID))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	_ = os.Remove(filepath.Join(dir, unfinished))
	_ = os.Remove(dir) // if it is empty
	return err
}

// noted are the networks that a container was connected to by other programs than the one that serves it names.
type noted struct {
	dir     string // of the host namespace's state
	late    string // lateDir
	changed time.Time
	read    time.Time
	looked  time.Time
	views   map[string]*view // by endpoint: as long as it is there its network is the same
}

// refresh reads what is noted, and says whether it has changed. While that cannot be read it stays with what it knows.
func (n *noted) refresh(now time.Time) bool {
	n.looked = now
	st, err := os.Stat(n.late)
	if errors.Is(err, fs.ErrNotExist) {
		had := len(n.views) > 0
		n.views, n.changed = nil, time.Time{}
		return had
	}
	if err != nil || st.ModTime().Equal(n.changed) && n.read.Sub(n.changed) > tick {
		return false
	}
	l, err := names(n.late)
	if err != nil {
		return false
	}
	views := map[string]*view{}
	for _, id := range l {
		v := n.views[id]
		if v == nil {
			var verr error
			if v, verr = n.view(filepath.Join(n.late, id)); verr != nil {
				err = verr // looked at again, though the directory does not change
			}
		}
		if v != nil {
			views[id] = v
		}
	}
	same := maps.Equal(views, n.views)
	if n.views = views; err == nil {
		n.changed, n.read = st.ModTime(), now
	}
	return !same
}

// view is that of the network which a file names; nil if either is gone.
func (n *noted) view(file string) (*view, error) {
	name, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(n.dir, "networks", string(name))
	var s netState
	ok, err := readJSON(filepath.Join(dir, "network.json"), &s)
	if !ok || err != nil {
		return nil, err
	}
	return &view{dir: filepath.Join(dir, "ep"), network: &s, eps: map[string]*epState{}}, nil
}
