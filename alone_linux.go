package caisson

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// planAlone is plan for a process without namespaces.
func (r *running) planAlone() error {
	s := r.spec
	r.m.newPID = false
	for _, k := range namespaces.All() {
		if k != namespaces.Time {
			r.declined(k.String()+" namespace", "the host's is used: the process is confined by Landlock only", "")
		}
	}
	r.declined("root filesystem", "the host's is used: the process is confined by Landlock only", "")
	if err := r.aloneUser(); err != nil {
		return err
	}
	if err := r.attributes(&s.process); err != nil {
		return err
	}
	if err := errors.Join(r.landlock(s.process.landlock), r.lsm(&s.process.lsm)); err != nil {
		return err
	}
	r.applied("capabilities", "none")
	if err := r.seccomp(0); err != nil {
		return err
	}
	r.m.rlimits, r.m.ignored, r.m.null = rlimits(&s.process), ignoredSignals(), s.nullStreams()
	return nil
}

// aloneUser decides about the ids: the caller's, or those of another user of the host, for who may take them on.
func (r *running) aloneUser() error {
	name := r.spec.process.user
	r.m.user = rootfs.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: "/"}
	if name == defaultUser {
		return nil
	}
	eff, _, _, err := caps.Held()
	if err != nil {
		return err
	}
	if need := caps.Of(caps.Setuid, caps.Setgid); !eff.Contains(need) {
		return withRemedy("leave WithUser out: the command keeps the caller's ids", "%w: user %q: the host program lacks %v", ErrPrivilege, name, need&^eff)
	}
	root, err := rootfs.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	if r.m.user, err = rootfs.LookupUser(root, name); err != nil {
		return fmt.Errorf("user %q: %w", name, err)
	}
	return nil
}

// aloneCredentials gives up all capabilities. The bounding set stays, since only the privileged can change it: with
// no_new_privs nothing in it can be had.
func (c *compiler) aloneCredentials(p *processSpec) {
	if u := c.m.user; p.user != defaultUser {
		c.Step("become", "user "+strconv.FormatUint(uint64(u.UID), 10))
		c.Setgroups(u.Groups)
		c.Setresgid(u.GID)
		c.Setresuid(u.UID)
	}
	c.Step("drop", "all capabilities")
	c.Prctl(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT", program.Named(unix.PR_CAP_AMBIENT_CLEAR_ALL, "PR_CAP_AMBIENT_CLEAR_ALL"))
	c.capset(capSets{})
}
