package netns

import "slices"

// Change is a setting of the host's that was changed for networks, and will be changed back with the last of them, unless others have changed
// it since or have come to rely on it. "forwarding" of each device goes with the switch of its family, and is not among them.
type Change struct {
	Path        string // below /proc/sys
	Before, Now string
}

// Obstacle is a chain of other programs' rules that drops forwarded packets unless they are let through by name.
type Obstacle struct {
	Family, Table, Chain string // "ip", "filter", "FORWARD"
	// Remedy says what lets packets of the network pass, in the place that the chain's program has for it.
	Remedy string
	// Legacy says that iptables-legacy made it, or ip6tables-legacy: nft does not show it.
	Legacy bool
}

// String names the chain as nft does.
func (o Obstacle) String() string {
	if o.Legacy {
		return o.Family + " " + o.Table + " " + o.Chain + " (iptables-legacy)"
	}
	return o.Family + " " + o.Table + " " + o.Chain
}

// Warning is what stands against a connection that was made all the same; it is caisson.NetworkWarning.
type Warning = struct{ Name, Reason, Remedy string }

// Obstacles are the chains of other programs that drop what is forwarded for the connection's networks, as they were when it was
// attached: see [Bridge.Obstacles]. Those of networks that are internal, or do not pass the host, are not looked for.
func (c *Connection) Obstacles() []Obstacle { return slices.Clone(c.obstacles) }

// Warnings are the obstacles in the form in which caisson.Container takes them into its Isolation and logs them, and one more if nobody resolves names
// for the container: no server of this program's, and none of the host's that it could reach.
func (c *Connection) Warnings() (out []Warning) {
	for _, o := range c.obstacles {
		out = append(out, Warning{"network through the host", "the chain " + o.String() + " of another program drops what it does not know", o.Remedy})
	}
	if c.unseen != nil {
		out = append(out, Warning{"network through the host", "whether another program's rules are in the way cannot be seen: " + c.unseen.Error(), ""})
	}
	return append(out, c.unresolved()...)
}
