package netns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
)

// ownerName is the name under which endpoints are recorded.
const ownerName = "netns.endpoint"

// recordVersion is the version of record.
const recordVersion = 1

// record is what another program needs to undo an attachment.
type record struct {
	StateDir  string        `json:"state"` // absolute
	Host      uint64        `json:"host"`  // cookie of the network namespace that plays the host
	Endpoints []endpointRef `json:"endpoints"`
	Pasta     string        `json:"pasta,omitempty"` // the id of a program instead of endpoints
	Made      string        `json:"made,omitempty"`  // by Join: epState.Made of what is this connection's
}

type endpointRef struct {
	Network string `json:"network"`
	ID      string `json:"id"`
}

func (r *record) encode() ([]byte, error) { return json.Marshal(r) }

func decodeRecord(version int, data []byte) (*record, error) {
	if version != recordVersion {
		return nil, fault("record", "its version %d is unknown", version)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fault("record", "%v", err)
	}
	if !filepath.IsAbs(r.StateDir) || filepath.Clean(r.StateDir) != r.StateDir {
		return nil, fault("record", "state directory %q", r.StateDir)
	}
	if r.Pasta != "" && !validName(r.Pasta, 32) {
		return nil, fault("record", "program %q", r.Pasta)
	}
	if r.Made != "" && !validName(r.Made, 32) {
		return nil, fault("record", "connection %q", r.Made)
	}
	for _, e := range r.Endpoints {
		if !validName(e.Network, 63) || !validName(e.ID, 32) {
			return nil, fault("record", "endpoint %q of network %q", e.ID, e.Network)
		}
	}
	return &r, nil
}

// netState is a network as it is recorded for all programs: the wish with every default filled in.
type netState struct {
	Name       string         `json:"name"`
	Bridge     string         `json:"bridge"`
	MAC        string         `json:"mac"`
	Subnets    []netip.Prefix `json:"subnets"`
	Ranges     []netip.Prefix `json:"ranges"`   // one a subnet, in its order
	Gateways   []netip.Addr   `json:"gateways"` // the same
	MTU        int            `json:"mtu"`
	Internal   bool           `json:"internal,omitempty"`
	HostAccess bool           `json:"hostAccess,omitempty"`
	NoNAT      bool           `json:"noNAT,omitempty"`

	linkSpec
	avoid []netip.Addr // addresses that are not given out
}

// epState is an endpoint as it is recorded for all programs.
type epState struct {
	ID        string         `json:"id"`
	Network   string         `json:"network"`
	Container string         `json:"container,omitempty"`
	Hostname  string         `json:"hostname,omitempty"`
	Kept      string         `json:"kept,omitempty"`  // Request.Kept
	Added     bool           `json:"added,omitempty"` // to what ran already
	Made      string         `json:"made,omitempty"`  // by Join: each run's own, the ID is the same
	First     endpointRef    `json:"first,omitzero"`  // the first of those with which the container's run began; none if it was added
	Names     []string       `json:"names,omitempty"` // in lower case, the first one answers for its addresses
	Device    string         `json:"device"`          // the host's end
	Interface string         `json:"interface"`       // the container's end
	Addresses []netip.Prefix `json:"addresses"`
	MAC       string         `json:"mac"`
	Ports     []Port         `json:"ports,omitempty"` // each alone, with the host's port
	Saved     *savedDevice   `json:"saved,omitempty"` // before it was moved
	Limits    Limits         `json:"limits,omitzero"`
	Egress    *Egress        `json:"egress,omitempty"`
	Waiting   bool           `json:"waiting,omitempty"` // in a pool: its names come later
	Late      uint64         `json:"late,omitempty"`    // the container's namespace, where a server of another program's was told
	Shared    bool           `json:"shared,omitempty"`  // its ports may stand in the table of all; else in one that its program has for itself
}

// sysctlState is a setting of the host's that was changed.
type sysctlState struct {
	Path   string `json:"path"`
	Before string `json:"before"`
	Now    string `json:"now"`
	Switch string `json:"switch,omitempty"` // the path of the setting with which it is changed
	Off    string `json:"off,omitempty"`    // the kernel changes both, and gives it this when the other one is switched off

	Others map[string]int `json:"others,omitempty"` // what relied on it before
}

func (n *netState) subnetOf(a netip.Addr) (int, bool) {
	for i, s := range n.Subnets {
		if s.Contains(a) {
			return i, true
		}
	}
	return 0, false
}

// same compares a wish with the network that exists. What was left to chance matches anything.
func (n *netState) same(c *BridgeConfig) string {
	for _, s := range c.Subnets {
		if i, ok := n.subnetOf(s.Addr()); !ok || n.Subnets[i] != s {
			return "subnet " + s.String()
		}
	}
	for _, g := range c.Gateways {
		if i, ok := n.subnetOf(g); !ok || n.Gateways[i] != g {
			return "gateway " + g.String()
		}
	}
	switch {
	case len(c.Subnets) > 0 && len(c.Subnets) != len(n.Subnets):
		return "number of subnets"
	case c.MTU != 0 && c.MTU != n.MTU:
		return "MTU"
	case c.link != n.linkSpec:
		return fmt.Sprintf("kind, parent or VLAN: %s %s %d", n.Kind, n.Parent, n.VLAN)
	case c.Bridge != n.Bridge:
		return "bridge " + n.Bridge
	case c.Internal != n.Internal:
		return "Internal"
	case c.HostAccess != n.HostAccess:
		return "HostAccess"
	case c.NoNAT != n.NoNAT:
		return "NoNAT"
	}
	return ""
}
