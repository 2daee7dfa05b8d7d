package netns

import "context"

// Owner returns what undoes connections that a killed program left behind: caisson.Recover, Load and Remove take it. It is for
// networks in the caller's own network namespace; see [OwnerIn].
func Owner() *ConnectionOwner { return &ConnectionOwner{} }

// OwnerIn is as [Owner], for networks whose [BridgeConfig.Host] is host.
func OwnerIn(host *Namespace) *ConnectionOwner { return &ConnectionOwner{host} }

// ConnectionOwner undoes connections from what was recorded about them.
type ConnectionOwner struct{ host *Namespace }

// Name returns under what connections are recorded.
func (o *ConnectionOwner) Name() string { return ownerName }

// Undo undoes a connection from its record. It returns nil also when nothing of it is left or was made. The error matches
// [ErrNotHere] if the connection was made in another network namespace.
func (o *ConnectionOwner) Undo(ctx context.Context, version int, data []byte) error {
	r, err := decodeRecord(version, data)
	if err != nil {
		return err
	}
	return o.undo(ctx, r)
}
