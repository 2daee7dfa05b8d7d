package netns

import (
	"net"
	"slices"
	"sync"
	"time"
)

// opener opens what answers name, from the namespace that plays the host.
type opener struct {
	conn *Connection

	mu     sync.Mutex
	closed bool
	guard  *guard
	until  map[opened]time.Time
}

type opened struct {
	id string
	opening
}

// namePolicy returns what decides about names; nil if no endpoint has a policy.
func (c *Connection) namePolicy() *namePolicy {
	if !slices.ContainsFunc(c.eps, func(e *epState) bool { return e.Egress != nil }) {
		return nil
	}
	o := &opener{conn: c, until: map[opened]time.Time{}}
	c.services = append(c.services, o)
	p := &namePolicy{open: o.open}
	for i, e := range c.eps {
		if e.Egress != nil || !c.states[i].Internal {
			p.endpoints = append(p.endpoints, policed{e.ID, e.Egress})
		}
	}
	return p
}

// open opens addresses, unless they are open for half the time yet.
func (o *opener) open(id string, l []opening, d time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return net.ErrClosed
	}
	now := time.Now()
	need := slices.DeleteFunc(slices.Clone(l), func(p opening) bool { return o.until[opened{id, p}].Sub(now) > d/2 })
	if len(need) == 0 {
		return nil
	}
	err := o.conn.host.inHost(func() (err error) {
		if o.guard == nil { // its socket stays in the namespace
			if o.guard, err = openGuard(o.conn.tableName()); err != nil {
				return err
			}
		}
		return o.guard.openNamed(id, need, d)
	})
	if err != nil {
		return err
	}
	if len(o.until) > 2*maxNamed {
		for k, t := range o.until {
			if t.Before(now) {
				delete(o.until, k)
			}
		}
	}
	for _, p := range need {
		o.until[opened{id, p}] = now.Add(d)
	}
	return nil
}

// Close closes the socket.
func (o *opener) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed = true; o.guard != nil {
		o.guard.close()
		o.guard = nil
	}
	return nil
}
