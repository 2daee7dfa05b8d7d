package caisson

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// On the host's programs the root in a user's container is a subordinate id, to which the user cannot give a group: nesting does without, and
// who asks for it is told.
func TestNestingWithoutDelegation(t *testing.T) {
	testutil.NeedUser(t)
	if b, err := os.ReadFile("/etc/subuid"); err != nil || !strings.Contains(string(b), userName()+":") {
		t.Skip("needs subordinate ids: root in the container is another user then")
	}
	needCgroup(t, cgroups.Pids)
	host := WithRootfs(rootfs.Host())
	c := newContainer(t, host, WithCommand("true"), WithNesting(true))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if m, ok := c.Isolation().Get("cgroup delegation"); !ok || m.Status != Unavailable || !strings.Contains(m.Remedy, "SingleIDMaps") {
		t.Errorf("%+v", m)
	}
	var e *Error
	err := newContainer(t, host, WithCommand("true"), WithCgroup(CgroupConfig{Delegate: true})).Run(testContext(t))
	if !errors.Is(err, ErrUnsupported) || !errors.Is(err, unix.EPERM) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "SingleIDMaps") {
		t.Errorf("%v", err)
	}
}
