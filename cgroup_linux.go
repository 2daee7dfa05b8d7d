package caisson

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// innerGroup is the group below the container's in which its processes live when it is delegated: the limits stand one
// level higher, out of reach.
const innerGroup = "inner"

// enter prepares the way of the first process into the container's group, or into the one below that is delegated to it.
func (r *running) enter(ctx context.Context, g *cgroups.Group) error {
	at := g
	if r.spec.cgroup.Delegate {
		var err error
		if at, err = r.delegate(ctx, g); err != nil {
			return err
		}
	}
	r.entry = at
	join, err := at.JoinFDs()
	if err != nil {
		return err
	}
	r.cgroup = join.CloneInto
	late := g.Missing()
	r.m.joins, r.m.late, r.m.attach = len(join.Tasks)+len(late), len(late) > 0, join.Attach
	for i, fd := range join.Tasks {
		r.fds[cgroupName(i)] = fd
	}
	trees := late
	for name := range g.Paths() {
		trees = append(trees, name)
	}
	r.narrowView(trees)
	return nil
}

// delegate makes the inner group and gives it to the container's root.
func (r *running) delegate(ctx context.Context, g *cgroups.Group) (*cgroups.Group, error) {
	in, err := g.New(ctx, innerGroup, cgroups.Resources{}, cgroups.Config{Optional: g.Controllers(), NoUnified: r.spec.nesting.cgroups})
	if err != nil {
		return nil, err
	}
	r.undo.add(in.Close)
	if r.m.userns == usernsNone { // the container's root is the host's
		r.applied("cgroup delegation", "to uid 0")
		return in, nil
	}
	uid, uok := namespaces.ToHost(r.maps.UID, 0)
	gid, gok := namespaces.ToHost(r.maps.GID, 0)
	if !uok || !gok {
		return nil, fmt.Errorf("%w: no root is mapped in the container's user namespace, to whom a group could be delegated", ErrInvalid)
	}
	switch err := in.Delegate(int(uid), int(gid)); {
	case errors.Is(err, unix.EPERM) && r.spec.nesting.cgroups: // it is done where it can be
		r.note(Measure{Name: "cgroup delegation", Status: Unavailable, Reason: notGiven(uid), Remedy: giveRemedy})
		return in, nil
	case errors.Is(err, unix.EPERM):
		return nil, withRemedy(giveRemedy, "%w: cgroup delegation: %s: %w", ErrUnsupported, notGiven(uid), err)
	case err != nil:
		return nil, err
	}
	r.applied("cgroup delegation", fmt.Sprintf("to uid %d outside", uid))
	return in, nil
}

// notGiven tells of a group that stays the host program's: an ordinary user cannot give it to another.
func notGiven(uid uint32) string {
	return fmt.Sprintf("the container's root is user %d outside, to whom this user cannot give a group", uid)
}

const giveRemedy = "have this user be root in the container (WithIDMaps with namespaces.SingleIDMaps, or another root filesystem than rootfs.Host), or run as root"

// narrowView shows the container those v1 hierarchies in which it has a group of its own: in the others it would see the
// host's groups.
func (r *running) narrowView(trees []string) {
	if v := &r.env.Cgroup; v.Version == 1 {
		v.Hierarchies = slices.DeleteFunc(slices.Clone(v.Hierarchies), func(name string) bool { return !slices.Contains(trees, name) })
	}
}

// mountDelegated makes the default mount of the cgroup filesystem writable for a container to which its group is delegated.
func (s *spec) mountDelegated(mounts []rootfs.Mount) []rootfs.Mount {
	if !s.cgroup.Delegate {
		return mounts
	}
	out := slices.Clone(mounts)
	for i := range out {
		if out[i].Type == rootfs.TypeCgroup {
			out[i].Set &^= rootfs.ReadOnly
		}
	}
	return out
}

// whyNoGroup says in one line why there is no cgroup, and what would help.
func whyNoGroup(err error) (reason, remedy string) {
	if u := (*cgroups.UnsupportedError)(nil); errors.As(err, &u) {
		reason, remedy = u.Reason, u.Remedy
		if u.Err != nil {
			reason += ": " + u.Err.Error()
		}
		if u.Controller != 0 && u.Knob == "" {
			reason = u.Controller.String() + ": " + reason
		}
	} else if e := (*cgroups.Error)(nil); errors.As(err, &e) {
		reason, remedy = e.Op+" "+e.Path+": "+e.Err.Error(), e.Remedy
	} else {
		reason = err.Error()
	}
	if remedy == "" {
		remedy = "run as root, or with a delegated cgroup"
	}
	return strings.ReplaceAll(reason, "\n", "; "), remedy
}
