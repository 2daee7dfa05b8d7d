package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/caisson-go/caisson/netns"
)

// Attachment is a container's connection to a network: an attachment of caisson, also a durable one.
type Attachment struct {
	net      *Network
	hostname string
	rec      record
	entry    uint64 // in the journal; 0 once it is struck out
	durable  bool   // recorded elsewhere

	mu     sync.Mutex
	result *Result
}

// Result is what the plugins made; nil before they have.
func (a *Attachment) Result() *Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.result
}

// ContainerID is what the plugins call the container.
func (a *Attachment) ContainerID() string { return a.rec.Container }

// Addresses are the container's.
func (a *Attachment) Addresses() (out []netip.Prefix) {
	if r := a.Result(); r != nil {
		for _, ip := range r.IPs {
			out = append(out, ip.Address)
		}
	}
	return out
}

// Record is what another program needs to undo the connection; see caisson.DurableAttachment.
func (a *Attachment) Record() (owner string, version int, data []byte) {
	a.durable = true
	data, _ = json.Marshal(a.rec)
	return ownerName, recordVersion, data
}

func (a *Attachment) journal() error {
	data, err := json.Marshal(a.rec)
	if err != nil {
		return err
	}
	j, err := journalOf(a.net.opts.Journal)
	if err == nil {
		a.entry, err = j.Add(ownerName, recordVersion, data)
	}
	return err
}

func (a *Attachment) strike() error {
	id := a.entry
	if a.entry = 0; id == 0 {
		return nil
	}
	j, err := journalOf(a.net.opts.Journal)
	if err != nil {
		return err
	}
	return j.Done(id)
}

// Attach runs ADD, plugin by plugin. What was made when one of them fails is left to Detach.
func (a *Attachment) Attach(ctx context.Context, t netns.Target) error {
	if err := a.journalFirst(); err != nil {
		return err
	}
	lock, err := a.rec.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := a.absent(); err != nil { // another came first
		return err
	}
	ns, err := netns.FromFile(t.Netns)
	if err != nil {
		return err
	}
	err = errors.Join(ns.Pin(a.rec.Namespace), ns.Close())
	if err != nil {
		return err
	}
	o := &a.net.opts
	c := &cached{Kind: cacheKind, ContainerID: a.rec.Container, Config: a.net.list.raw, IfName: a.rec.Interface, NetworkName: a.rec.Network,
		NetNS: a.rec.namespacePath(), CapabilityArgs: o.Capabilities}
	for k, v := range o.Args {
		c.Args = append(c.Args, [2]string{k, v})
	}
	slices.SortFunc(c.Args, func(x, y [2]string) int { return slices.Compare(x[:], y[:]) })
	if err := a.rec.save(c); err != nil {
		return &Error{Op: "keep what DEL needs", Object: a.rec.file(), Err: err}
	}
	return a.add(ctx, lock, c)
}

// absent says that the container is connected already.
func (a *Attachment) absent() error {
	c, err := a.rec.load()
	if err == nil && c == nil {
		return nil
	}
	return &Error{Op: "connect to network", Object: a.rec.Network, Err: errors.Join(fmt.Errorf("%w: container %s", netns.ErrExists, a.rec.Container), err),
		Remedy: "what a killed program left is undone by caisson.Recover with cni.Owner"}
}

// journalFirst records the connection before anything of it is made.
func (a *Attachment) journalFirst() error {
	if a.durable {
		return nil // it stands in the container's own record
	}
	return a.journal()
}

func (a *Attachment) add(ctx context.Context, lock *os.File, c *cached) error {
	l := a.net.list
	for i := range l.Plugins {
		p := &l.Plugins[i]
		b, err := l.request(p, a.net.opts.Capabilities, c.Result, nil)
		if err != nil {
			return err
		}
		k := a.rec.call("ADD", c, lock)
		answer, err := k.run(ctx, p.Type, b)
		if err != nil {
			return &Error{Op: "connect to network", Object: l.Name, Err: err}
		}
		if _, err := parseResult(answer); err != nil {
			return &Error{Op: "connect to network", Object: l.Name, Err: &PluginError{Plugin: p.Type, Command: "ADD", Err: err}}
		}
		c.Result = answer
		if err := a.rec.save(c); err != nil {
			return &Error{Op: "keep what DEL needs", Object: a.rec.file(), Err: err}
		}
	}
	r, err := parseResult(c.Result)
	a.mu.Lock()
	a.result = r
	a.mu.Unlock()
	return err
}

// Detach runs DEL, in the order opposite to ADD, and forgets the connection when all plugins have done it.
func (a *Attachment) Detach(ctx context.Context) error {
	if err := a.rec.undo(ctx); err != nil {
		return err
	}
	return a.strike()
}

// Check finds out whether the container's network is as it was made (CHECK, from version 0.4.0 on; nothing where the list disables it).
// The error matches [ErrChanged] if not.
func (a *Attachment) Check(ctx context.Context) error {
	l := a.net.list
	if l.DisableCheck || !atLeast(l.Version, "0.4.0") {
		return nil
	}
	c, err := a.rec.load()
	if err != nil {
		return err
	}
	if c == nil || c.Result == nil {
		return &Error{Op: "check", Object: "network " + l.Name, Err: netns.ErrNotFound, Remedy: "connect the container first"}
	}
	for i := range l.Plugins {
		p := &l.Plugins[i]
		b, err := l.request(p, a.net.opts.Capabilities, c.Result, nil)
		if err != nil {
			return err
		}
		k := a.rec.call("CHECK", c, nil)
		if _, err := k.run(ctx, p.Type, b); err != nil {
			return &Error{Op: "check", Object: "network " + l.Name, Err: errors.Join(ErrChanged, err)}
		}
	}
	return nil
}

// Owner returns what runs DEL for connections that a killed program left behind: caisson.Recover, Load and Remove take it. The plugins
// act in the caller's network namespace.
func Owner() *ConnectionOwner { return &ConnectionOwner{} }

// ConnectionOwner undoes connections from what was recorded about them.
type ConnectionOwner struct{}

// Name returns under what connections are recorded.
func (*ConnectionOwner) Name() string { return ownerName }

// Undo undoes a connection from its record. It returns nil also when nothing of it is left or was made.
func (*ConnectionOwner) Undo(ctx context.Context, version int, data []byte) error {
	r, err := decodeRecord(version, data)
	if err != nil {
		return err
	}
	return r.undo(ctx)
}
