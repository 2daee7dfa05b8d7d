package rootfs

import (
	"context"
	"errors"
	"slices"
)

// HostSource is a view of the host as root filesystem. Make it with [Host] or [HostAll].
type HostSource struct {
	all   bool
	upper Upper
}

// Host is the root filesystem that needs no download: the host's own programs. It shows /usr, /bin, /sbin,
// /lib*, /opt and /etc under a writable layer that vanishes with the container, and has /home, /root, /run,
// /var, /srv, /mnt, /media, /boot and /tmp empty. The host's files are never changed.
//
// What the container can read there is what everybody can: the container runs in a user namespace in which the
// owners of the host's files do not exist, its root user included. A file in /etc or /opt for root or for one
// user only is not readable, and a unix socket anywhere in these directories refuses connections.
//
// Below a user namespace the kernel does not part a directory from the mounts below it. Such a directory is composed of the directories
// and the few files in it, where everybody may read them, and else shown read-only with a note; it is then searched for sockets.
//
// Where the caller has no subordinate ids the container's processes keep the caller's own user id and groups.
// Files that these open, and others may not read, are then looked for and masked; the search reads every
// directory shown and takes some tenths of a second at each start. A file made after the search, or in a
// directory that the caller may not list, is not found.
func Host() HostSource { return HostSource{} }

// HostAll shares all of the host's files, secrets included: the whole of / but /proc, /sys, /dev, /run and
// /tmp, under a writable layer that vanishes with the container. Whatever the ids of the container may read
// on the host, it reads: with the host's root user that is every key and password. The host's files are never
// changed. Unix sockets refuse connections, but for directories that cannot have a writable layer here, which a
// note of the description names. Files directly in / are not shown.
func HostAll() HostSource { return HostSource{all: true} }

// UpperSize limits the layer in memory that takes the changes, in bytes, and with it /tmp and all that is not
// a mount of its own. Default: see [DefaultUpperSize].
func (h HostSource) UpperSize(bytes int64) HostSource { h.upper.Size = bytes; return h }

// HidesOwners reports that the container needs a user namespace in which the host's ids are not mapped; see
// [OwnerHider].
func (h HostSource) HidesOwners() bool { return !h.all }

// Describe implements [Source]. [Host] refuses an env without a user namespace.
func (h HostSource) Describe(ctx context.Context, env Env) (*Description, error) {
	if !h.all && !env.UserNamespace {
		return nil, &Error{Op: "show the host's programs", Err: errors.New("the container has no user namespace"),
			Remedy: "without one its root user reads all secrets of the host; HostAll does that, if it is what you want"}
	}
	upper, err := h.upper.resolve(env)
	if err != nil {
		return nil, err
	}
	v, err := viewHost(env.Unprivileged)
	if err != nil {
		return nil, err
	}
	plan := v.planHost
	if h.all {
		plan = v.planAll
	}
	if err := plan(); err != nil {
		return nil, err
	}
	d := &Description{Kind: KindComposed, Upper: upper, Parts: v.parts, Notes: v.notes, HideOwners: !h.all}
	if h.all && slices.ContainsFunc(v.parts, func(p Part) bool { return p.Bind && !p.file }) {
		d.Notes = append(d.Notes, "Unix sockets in the read-only directories can be connected to.")
	}
	d.Masked, err = findSecrets(ctx, v, !h.all && env.OwnIDs, !h.all)
	return d, err
}
