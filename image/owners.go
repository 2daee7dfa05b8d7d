package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// OwnerPolicy says to whom files belong that an ordinary user unpacks. Root gives every file to its owner.
type OwnerPolicy int

const (
	// OwnersCaller leaves all files to the caller.
	OwnersCaller OwnerPolicy = iota
	// OwnersMapped gives files to the ids that their owners have in the user namespaces of the caller's containers: the maps that
	// [namespaces.AutoIDMaps] chooses for [namespaces.RootIsCaller], which are a container's default. Root's files belong to the caller, others to
	// subordinate ids, and set-group-ID bits, access lists and file capabilities come out as in the image. The caller itself can then not read what the image has closed to root's
	// group and others, so commits and diffs of such files fail; overlays do not mind. Snapshots by other methods than [MethodOverlay] begin with layers as
	// [OwnersCaller] makes them.
	//
	// It needs subordinate ids, newuidmap(1) and newgidmap(1). Where they are missing files are left to the caller, and
	// [Unpacked.Notes] say so. A container with other maps is given layers as [OwnersCaller] makes them.
	OwnersMapped
)

// ownersFor finds out what the policy comes to for the caller.
func (s *Store) ownersFor(p Policy) error {
	if p.Owners != OwnersMapped || isPrivileged() {
		return nil
	}
	auto, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err != nil {
		return err
	}
	if s.shortfall = auto.Shortfall; auto.Style == namespaces.RootIsCaller {
		s.maps = auto.IDMaps
	}
	return nil
}

// ownersKey is what the name of an unpacked layer ends with whose files have mapped owners.
func ownersKey(m namespaces.IDMaps) string {
	sum := sha256.Sum256([]byte(m.String()))
	return "-own" + hex.EncodeToString(sum[:8])
}

// plainFor says that a container's user namespace does not have the maps of the store's layers.
func (s *Store) plainFor(env rootfs.Env) bool {
	return !s.maps.IsZero() && env.IDMaps != s.maps.String()
}

// checkMaps refuses a container whose user namespace has not the maps of a snapshot's files.
func (s *Store) checkMaps(env rootfs.Env) error {
	if !s.plainFor(env) {
		return nil
	}
	return &Error{Op: "describe", Object: "the snapshot", Err: because(errInvalid, "the container has the id maps %q, the files were unpacked for %q", env.IDMaps, s.maps),
		Remedy: "let the container have the default maps, or open the store with OwnersCaller"}
}

// giver has the process that gives files away, from when it is needed. A nil one has none.
type giver struct {
	ctx  context.Context
	maps namespaces.IDMaps

	mu     sync.Mutex
	owners *namespaces.Owners
}

// newGiver returns nil where files keep their owner.
func (s *Store) newGiver(ctx context.Context, plain bool) *giver {
	if plain || s.maps.IsZero() {
		return nil
	}
	return &giver{ctx: ctx, maps: s.maps}
}

func (g *giver) get() (*namespaces.Owners, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	if g.owners == nil {
		g.owners, err = namespaces.NewOwners(g.ctx, g.maps)
	}
	return g.owners, err
}

func (g *giver) close() {
	if g != nil && g.owners != nil {
		g.owners.Close()
	}
}

// has says that there is an id for the owner.
func (g *giver) has(uid, gid int) bool {
	_, uok := namespaces.ToHost(g.maps.UID, uint32(uid))
	_, gok := namespaces.ToHost(g.maps.GID, uint32(gid))
	return uok && gok
}

// inside are the ids of the image for those on disk.
func (g *giver) inside(d *inherited) {
	if g == nil || d.Link != "" {
		return
	}
	u, uok := namespaces.ToContainer(g.maps.UID, d.UID)
	n, gok := namespaces.ToContainer(g.maps.GID, d.GID)
	if uok && gok {
		d.UID, d.GID = u, n
	}
}
