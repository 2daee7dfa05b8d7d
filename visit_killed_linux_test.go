package caisson

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/rootfs"
)

// A visit that is killed is not one that has done its work.
func TestVisitKilled(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c, _ := start(t, ctx, WithCommand("/bin/sleep", "1000"))
	if _, _, err := c.run.mountNamespaces(); err != nil {
		t.Fatal(err)
	}
	_, err := c.run.visit(ctx, visiting{kinds: unix.CLONE_NEWNS, inside: func(v *visit) {
		v.Step("end", "itself")
		self := v.Call(unix.SYS_GETPID, "getpid")
		v.Call(unix.SYS_KILL, "kill", self.Result(), program.Int(int(unix.SIGKILL)))
	}})
	if !errors.Is(err, ErrHelperKilled) {
		t.Errorf("a visit that was killed: %v", err)
	}
	if err := c.Mount(ctx, rootfs.TmpfsMount("/tmp", 1<<20)); err != nil {
		t.Error(err)
	}
}
