package caisson

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
)

// joins are the namespaces that a start joins.
type joins struct {
	files map[namespaces.Kind]*os.File
	host  namespaces.Kinds // those that turned out to be the host program's own
	user  bool             // the user namespace has been decided about
}

func (j *joins) add(k namespaces.Kind, f *os.File) {
	if j.files == nil {
		j.files = map[namespaces.Kind]*os.File{}
	}
	j.files[k] = f
}

// joinWish opens a namespace that is to be joined.
func (r *running) joinWish(k namespaces.Kind, n namespaces.Namespace) error {
	f, err := r.openWish(k, n)
	if err != nil {
		return err
	}
	r.undo.add(f.Close)
	if k == namespaces.PID {
		r.m.newPID = false
	}
	name := k.String() + " namespace"
	if isOwn(k, f) {
		r.joins.host = r.joins.host.With(k)
		r.declined(name, "what is joined is the host's", "")
		return nil
	}
	r.joins.add(k, f)
	r.fds[name] = int(f.Fd())
	if k == namespaces.User {
		return nil
	}
	r.m.joined = append(r.m.joined, joinedNS{uint64(k.CloneFlag()), name})
	r.m.joinPID = r.m.joinPID || k == namespaces.PID
	r.applied(name, r.joinName(k, n))
	return nil
}

func (r *running) joinName(k namespaces.Kind, n namespaces.Namespace) string {
	if p := &r.spec.pod; p.joins(r.spec, k) {
		if id := p.of.ID(); id != "" {
			return "of container " + strconv.Quote(id)
		}
		return "of another container"
	}
	return n.String()
}

func (r *running) openWish(k namespaces.Kind, n namespaces.Namespace) (*os.File, error) {
	if r.spec.pod.joins(r.spec, k) {
		return r.spec.pod.of.openNamespace(k)
	}
	return openNamespace(k, n)
}

// openNamespace opens a namespace of a container that has a process.
func (c *Container) openNamespace(k namespaces.Kind) (*os.File, error) {
	const op = "join namespaces of"
	c.mu.Lock()
	err := c.may(op, StateCreated, StateRunning, StatePaused)
	run, p := c.run, c.proc
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if c.spec.alone {
		return nil, c.fail(op, fmt.Errorf("%w: it has none of its own", ErrUnsupported))
	}
	ended := func() error { return c.fail(op, fmt.Errorf("%w: the container has ended", ErrState)) }
	if !run.execs.enter() { // as long as we are in, its process is not collected, so that its number is not another's
		return nil, ended()
	}
	defer run.execs.in.Done()
	f, err := namespaces.Of(k, p.pid)
	if run.pidfd == nil || run.pidfd.Ended() { // that of a detached container is collected by its keeper
		if err == nil {
			f.Close()
		}
		return nil, ended()
	}
	return f, c.fail(op, run.gone(err))
}

// isOwn reports whether a namespace is the host program's.
func isOwn(k namespaces.Kind, f *os.File) bool {
	own, err := namespaces.Current(k)
	if err != nil {
		return false
	}
	defer own.Close()
	return sameNamespace(own, f)
}

func sameNamespace(a, b *os.File) bool {
	x, err1 := namespaces.IDOf(a)
	y, err2 := namespaces.IDOf(b)
	return err1 == nil && err2 == nil && x == y
}

// joinUser decides whether a user namespace is joined: one that was named, or that of the container whose namespaces are
// joined if it has one and nothing else was said.
func (r *running) joinUser(priv bool) (bool, error) {
	s, want := r.spec, r.spec.namespaces.User
	if !r.joins.user {
		r.joins.user = true
		switch {
		case want.IsJoin():
			if err := r.joinWish(namespaces.User, want); err != nil {
				return false, err
			}
		case want.IsDefault() && s.pod.of != nil:
			f, err := s.pod.of.openNamespace(namespaces.User)
			if err != nil {
				return false, err
			}
			r.undo.add(f.Close)
			if !isOwn(namespaces.User, f) {
				r.joins.add(namespaces.User, f)
				r.fds[inputUser] = int(f.Fd())
			}
		}
	}
	f := r.joins.files[namespaces.User]
	if f == nil {
		return false, nil
	}
	if !r.m.joinUser {
		if err := r.mapsOf(f); err != nil {
			return false, err
		}
		if s.idmaps != nil && !s.idmaps.Equal(r.maps) {
			return false, invalid("WithIDMaps", "the user namespace that is joined has others: %s", describeMaps(r.maps))
		}
		r.m.joinUser, r.m.userns = true, usernsRanges
	}
	r.mapped()
	r.env.OwnIDs = !priv && r.maps.Equal(namespaces.SingleIDMaps())
	if priv {
		r.env.IDMap = f
	}
	r.applied("user namespace", "joined: "+describeMaps(r.maps))
	return true, nil
}

// mapsOf finds out the id maps of a user namespace, as the host program sees them.
func (r *running) mapsOf(f *os.File) error {
	err := stage.InUserNamespace(f, func(pid int) (err error) {
		if r.maps, err = namespaces.IDMapsOf(pid); err != nil {
			return err
		}
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/setgroups")
		r.m.denied = err == nil && string(b) == "deny\n"
		return nil
	})
	if errors.Is(err, unix.EPERM) {
		return withRemedy("only the user that made it, and who has CAP_SYS_ADMIN in it or outside, can join it", "%w: join user namespace: %w", ErrPrivilege, err)
	}
	if err != nil {
		return fmt.Errorf("join user namespace: %w", err)
	}
	return nil
}

// foreign reports whether the container's namespace of a kind is not its user namespace's.
func (r *running) foreign(k namespaces.Kind) bool {
	if r.spec.namespaces.Get(k).IsHost() || r.joins.host.Has(k) {
		return true
	}
	f, user := r.joins.files[k], r.joins.files[namespaces.User]
	if f == nil {
		return false
	}
	owner, err := namespaces.OwningUser(f)
	if err != nil || user == nil {
		if err == nil {
			owner.Close()
		}
		return true
	}
	defer owner.Close()
	return !sameNamespace(owner, user)
}

// checkJoins refuses what the kernel would, or would allow only in a way that is not safe.
func (r *running) checkJoins(priv bool) error {
	r.env.HostNetwork, r.env.HostPIDs = r.foreign(namespaces.Net), r.foreign(namespaces.PID)
	const remedy = "join that user namespace too: WithNamespace(namespaces.User, ...), which WithNamespacesOf does by itself unless told otherwise"
	for _, k := range namespaces.All() {
		if r.joins.files[k] == nil || k == namespaces.User || !r.env.UserNamespace || !r.foreign(k) {
			continue
		}
		if !priv {
			return withRemedy(remedy, "%w: the %v namespace belongs to another user namespace than the container", ErrPrivilege, k)
		}
		if k == namespaces.PID {
			return withRemedy(remedy+"; or leave the container in the host's: namespaces.Host()",
				"%w: the pid namespace belongs to another user namespace than the container", ErrUnsupported)
		}
	}
	if !r.m.outside() {
		return nil
	}
	if !procOfNamespace() {
		return withRemedy("Linux 6.17, or a container with a user namespace, which is then joined too",
			"%w: joining a pid namespace without a user namespace: a process with privileges would have to appear in it", ErrUnsupported)
	}
	r.env.PIDNamespace = namespaces.PID.String() + " namespace"
	return nil
}

// procOfNamespace reports whether procfs of another pid namespace can be mounted, which is asked with this program's own.
var procOfNamespace = sync.OnceValue(func() bool {
	own, err := unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(own)
	proc, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(proc)
	return unix.FsconfigSetFd(proc, "pidns", own) == nil
})
