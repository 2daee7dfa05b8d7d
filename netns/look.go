package netns

// Change is a setting of the host's that was changed for networks, and will be changed back with the last of them.
type Change struct {
	Path        string // below /proc/sys
	Before, Now string
}

// Obstacle is a chain of other programs' rules that drops forwarded packets unless they are let through by name.
type Obstacle struct {
	Family, Table, Chain string // "ip", "filter", "FORWARD"
}

// String names the chain as nft does.
func (o Obstacle) String() string { return o.Family + " " + o.Table + " " + o.Chain }
