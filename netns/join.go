package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// Join connects a running container to the networks, and each of its later runs: what "docker network connect" does. The container is the one whose
// network namespace ns is ([OfPID] of its process), of this program or another's, and is on a network of this package already, with the same
// [BridgeConfig.Host] and StateDir; the error matches [ErrNotFound] if it is not. It gets the names there that it has on the others, the Aliases of each endpoint, and an Interface
// that is free, unless one is given. A detached container joins 100 networks at most ([ErrExhausted]).
//
// The connection is the container's, and not this program's: it goes with the run, and the next run (a restart by its policy, or another Start of it) gets it
// again, with the same addresses unless others have taken them meanwhile. What stands in the way of it then, such as a port that is taken, makes the
// start fail. A container that is not detached, and was joined by another program, has to come to the end of a run for that; one whose request had neither Kept nor Memory, such as
// one that took its place from a [Pool], has no later run that gets it. Ports are published on all of the host's addresses but the loopback ones, which are refused.
//
// Of two calls at once for one container, the one that finds its Interface taken meanwhile fails ([ErrExists]). [Connection.Status] is that of the run that was joined.
// A [*Device] is taken by each run, and given back at its end. A [*Tun], whose other end is this program's, is joined by the program that runs the container and has not detached it: its
// Open is called in each run. So is an [*Overlay] whose Peers are this program's: it listens to the other hosts, and tells them of the container, as long as the container's run goes
// on and in each later one. For others that matches [ErrPeers], except with [StaticPeers], and with a [Directory] without a Carrier: then each program that begins a later run does so, and this
// one until its end or Detach; what was told and heard last stays where a program ends before the container, but with such a Directory
// who ends the run takes back what was told. What cannot be joined matches [ErrInvalid]; so do names in [Endpoint.Egress].
//
// [Connection.Detach] disconnects the container, in whichever run it is, and has no later run get the connection again; so does [Networks.Leave], from any program. ctx
// bounds the call only.
//
// If the program is killed meanwhile, the container has joined all of the networks, in this run and later ones, or it has joined none, which the recovery sees to ([Owner]).
func (n *Networks) Join(ctx context.Context, ns *Namespace) (*Connection, error) {
	if err := n.joinable(); err != nil {
		return nil, err
	}
	return n.join(ctx, ns)
}

// joinable reports what Join does not take.
func (n *Networks) joinable() error {
	if err := n.Validate(); err != nil {
		return err
	}
	var faults []error
	for i := range n.Endpoints {
		e := &n.Endpoints[i]
		if e.Egress.named() {
			faults = append(faults, fault(fmt.Sprintf("Endpoints[%d].Egress", i), "names in it need a server of names, which Join does not make"))
		}
		for _, p := range e.Ports {
			if p.HostAddr.IsLoopback() {
				faults = append(faults, fault(fmt.Sprintf("Endpoints[%d].Ports", i), "%v: loopback addresses need a program that carries what is sent there, and the run's has begun without", p))
			}
		}
	}
	return errors.Join(faults...)
}

// Leave disconnects a container from those of the networks that it was connected to by [Networks.Join], from whichever program, and no later run of it gets them again.
// Of n only the names of the networks count. The error matches [ErrNotFound] if the container has not joined one of them, and [ErrPeers] if the other hosts of an overlay cannot be told
// by this program, which its own does at the end of the run; what it has joined is left all the same.
func (n *Networks) Leave(ctx context.Context, ns *Namespace) error {
	if err := n.Validate(); err != nil {
		return err
	}
	return n.leave(ctx, ns)
}

// joining is whom a connection made by Join belongs to.
type joining struct {
	base   *epState  // the first endpoint that the container's run began with
	memory *sync.Map // Request.Memory of it, if it is this program's
	ids    []string  // of the endpoints, as they were in an earlier run; nil: new ones
	chosen bool      // keptEndpoint.Chosen of these
	over   bool      // it is handed over: who undoes the run undoes it too
}

// keptEndpoint is an endpoint that a container has by Join: what it is made of in a later run.
type keptEndpoint struct {
	ID             string       `json:"id"`               // the same in each run
	Nth            int          `json:"nth"`              // in the order of joining
	With           string       `json:"with,omitempty"`   // until all that were joined at once are: the first of them, see [store.settle]
	Left           bool         `json:"left,omitempty"`   // it is being taken away, and no later run has it
	Chosen         bool         `json:"chosen,omitempty"` // nobody wished for the subnets, nor for the addresses
	Network        netState     `json:"network"`
	Interface      string       `json:"interface"`
	Addresses      []netip.Addr `json:"addresses,omitempty"`
	MAC            string       `json:"mac,omitempty"`
	Aliases        []string     `json:"aliases,omitempty"`
	Ports          []Port       `json:"ports,omitempty"` // as they were wished
	NoDefaultRoute bool         `json:"noDefaultRoute,omitempty"`
	Limits         Limits       `json:"limits,omitzero"`
	Egress         *Egress      `json:"egress,omitempty"`
	Peers          []netip.Addr `json:"peers,omitempty"` // of an overlay
	Store          *keptStore   `json:"store,omitempty"` // of one whose hosts tell each other by files
}

// keptStore is what a [Directory] of NewPeerStore is made of again.
type keptStore struct {
	Dir    string `json:"dir"` // absolute
	Prefix string `json:"prefix"`
}

// begun says that not all of what was joined at once may be.
func (k keptEndpoint) begun() bool { return k.With != "" }

// Keys in Request.Memory: the id of an endpoint.
type (
	keptKey string // the keptEndpoint
	liveKey string // its Network, where that is more than data
)
