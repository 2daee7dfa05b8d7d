package netns

// Traffic is what an endpoint has carried since its container was connected.
type Traffic struct {
	Network   string
	Container string // the container's id
	Interface string // in the container
	// Received is what the container got, Sent what it sent: whole Ethernet frames. The host's device counts them, so the container
	// cannot change the numbers. What limits or an egress policy drop afterwards is among what was sent.
	ReceivedBytes, ReceivedPackets uint64
	SentBytes, SentPackets         uint64
	// Dropped is how many packets to the container the host dropped, above all for a limit.
	Dropped uint64
	// Denied is what the endpoint's egress policy dropped.
	DeniedPackets, DeniedBytes uint64
}
