package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caisson-go/caisson/internal/ahead"
)

// PoolConfig says how many network namespaces a [Pool] keeps ready, and what they are connected to.
type PoolConfig struct {
	// Size is how many are kept ready: 1 to 1000.
	Size int
	// Networks are what each is connected to. Addresses, hardware addresses and ports of the host are chosen for each, and are not
	// given; ports that are published are told by [Lease.Status]. A [Device] exists once, and is not for a pool. Default, nil: nothing; the namespaces have a loopback device.
	Networks *Networks
}

const maxPool = 1000

func (cfg *PoolConfig) validate() error {
	var faults []error
	if cfg.Size < 1 || cfg.Size > maxPool {
		faults = append(faults, fault("Size", "%d is not in 1..%d", cfg.Size, maxPool))
	}
	if cfg.Networks == nil {
		return errors.Join(faults...)
	}
	faults = append(faults, cfg.Networks.Validate())
	for i, e := range cfg.Networks.Endpoints {
		field := func(s string) string { return fmt.Sprintf("Networks.Endpoints[%d].%s", i, s) }
		if len(e.Addresses) > 0 {
			faults = append(faults, fault(field("Addresses"), "each endpoint of a pool has its own"))
		}
		if len(e.MAC) > 0 {
			faults = append(faults, fault(field("MAC"), "each endpoint of a pool has its own"))
		}
		if slices.ContainsFunc(e.Ports, func(p Port) bool { return p.Host != 0 }) {
			faults = append(faults, fault(field("Ports"), "a port of the host can be published once; let it be chosen (Host of 0)"))
		}
		if e.Network != nil && e.Network.config() != nil && e.Network.config().link.Kind == kindDevice {
			faults = append(faults, fault(field("Network"), "%s is one device, for one container", e.Network.Name()))
		}
	}
	return errors.Join(faults...)
}

// Pool keeps network namespaces ready that are connected already: taking one costs a part of what making and connecting it does.
// Each is used once; what one tenant has used is removed, and never given to another. While one waits it has addresses
// but no name, no process is in it, and nothing answers there.
//
// What waits is recorded as every connection is: after the program was killed, caisson.Recover with [Owner] or the next program
// removes it. One that waits costs the host a namespace, a pair of devices and three open files for each network, and the server of
// names inside two goroutines.
//
// Its methods can be called from any number of goroutines. The zero Pool is not usable: see [NewPool].
type Pool struct {
	cfg     PoolConfig
	aliases [][]string // of each endpoint

	ready *ahead.Pool[*Lease]
	taken atomic.Uint64
}

// PoolStats are counts of a [Pool] since it was made.
type PoolStats struct {
	Ready                       int    // that wait now
	Made, Failed, Taken, Missed uint64 // Missed: calls of Get that found none ready
	LastError                   error  // why the last attempt to make one failed; nil where it succeeded
}

// ErrPoolClosed: the pool was closed.
var ErrPoolClosed = errors.New("pool is closed")

// NewPool makes a pool and begins to fill it. Faults of cfg are reported at once, all of them, as errors that match [ErrInvalid];
// what this machine cannot do is reported by Get. It needs what [New] and the networks need. The pool must be closed.
func NewPool(cfg PoolConfig) (*Pool, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg}
	if n := cfg.Networks; n != nil {
		// A copy without aliases: nobody is to find what waits.
		p.cfg.Networks = &Networks{Endpoints: slices.Clone(n.Endpoints), DNS: n.DNS, Hosts: slices.Clone(n.Hosts), NoFiles: n.NoFiles}
		for i := range p.cfg.Networks.Endpoints {
			e := &p.cfg.Networks.Endpoints[i]
			p.aliases = append(p.aliases, slices.Clone(e.Aliases))
			e.Aliases = nil
		}
	}
	p.ready = ahead.New(ahead.Config[*Lease]{Size: cfg.Size, Make: p.make, Drop: (*Lease).Close, Closed: ErrPoolClosed})
	return p, nil
}

func (p *Pool) make(ctx context.Context) (*Lease, error) {
	ns, err := New()
	if err != nil {
		return nil, err
	}
	l := &Lease{ns: ns}
	if p.cfg.Networks != nil {
		if l.conn, err = p.cfg.Networks.wait(ctx, ns); err != nil {
			return nil, errors.Join(err, ns.Close())
		}
	}
	return l, nil
}

// Get takes a namespace, and waits for one until ctx ends if none is ready. name is the name it gets on its networks; "" for
// none but the aliases of the endpoints. A ctx that has ended takes none. The caller closes the result. After Close the error matches [ErrPoolClosed].
func (p *Pool) Get(ctx context.Context, name string) (*Lease, error) {
	if name != "" && !validHost(name) {
		return nil, fault("name", "%q is not the name of a host", name)
	}
	if err := ctx.Err(); err != nil {
		return nil, err // it would take one that could not be named, and end it
	}
	l, err := p.ready.Next(ctx)
	if err != nil {
		return nil, err
	}
	p.taken.Add(1)
	defer p.ready.Poke() // not before: making the next one would take the lock that naming this one needs
	if l.conn != nil {
		if err := l.conn.take(ctx, name, p.aliases); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// Stats tells how the pool fares.
func (p *Pool) Stats() PoolStats {
	s := p.ready.Stats()
	return PoolStats{Ready: s.Ready, Made: s.Made, Failed: s.Failed, Missed: s.Missed, LastError: s.LastError, Taken: p.taken.Load()}
}

// Close removes what waits. What was taken stays its taker's. Closing again waits for the same end.
func (p *Pool) Close() error { return p.ready.Close() }

// Lease is a network namespace from a [Pool], with its connection. It belongs to one taker, and is removed when it is closed.
//
// A container is put into it by namespaces.JoinFile of its Namespace's File, and gets its Files by the option for files. That needs
// root: a container with a user namespace of its own cannot join it.
type Lease struct {
	ns   *Namespace
	conn *Connection // nil without networks
	once sync.Once
	err  error
}

// Namespace returns the namespace. It stays the lease's.
func (l *Lease) Namespace() *Namespace { return l.ns }

// Status tells about the endpoints, with addresses and published ports.
func (l *Lease) Status() []Status {
	if l.conn == nil {
		return nil
	}
	return l.conn.Status()
}

// Files are /etc/hosts, /etc/hostname and /etc/resolv.conf for a container in the namespace; none without networks.
func (l *Lease) Files() []File {
	if l.conn == nil {
		return nil
	}
	return l.conn.Files()
}

// Dial connects from inside, as [Namespace.Dial] does.
func (l *Lease) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return l.ns.Dial(ctx, network, address)
}

// Close disconnects the namespace and lets go of it. What still runs in it loses its networks. Closing again is harmless.
func (l *Lease) Close() error {
	l.once.Do(func() {
		if l.conn != nil {
			l.err = l.conn.Detach(context.Background())
		}
		l.err = errors.Join(l.err, l.ns.Close())
	})
	return l.err
}
