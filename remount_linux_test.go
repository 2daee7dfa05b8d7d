package caisson

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/rootfs"
)

// TestRemount: attributes of an earlier mount are changed, also of one that every container has; links do not lead elsewhere.
func TestRemount(t *testing.T) {
	noLeaks(t)
	remount := func(target string, set, clr rootfs.MountFlags) Option {
		return WithMount(rootfs.Mount{Type: rootfs.TypeRemount, Target: target, Set: set, Clear: clr})
	}
	out := output(t, WithRootfs(dirOf(t)), WithMount(rootfs.TmpfsMount("/scratch", 1<<20)),
		remount("/scratch", rootfs.ReadOnly|rootfs.NoExec, 0), remount("/dev/shm", rootfs.ReadOnly, 0),
		WithCommand("sh", "-c", `for d in /scratch /dev/shm; do touch $d/x 2>/dev/null && echo written; grep " $d " /proc/self/mountinfo | cut -d' ' -f6; done`))
	if want := "ro,nosuid,nodev,noexec,relatime\nro,nosuid,nodev,noexec,relatime"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	c := newContainer(t, WithRootfs(dirOf(t)), remount("/bin", rootfs.ReadOnly, 0), WithCommand("true"))
	if _, err := c.Start(testContext(t)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("where nothing is mounted: %v", err)
	}
	for _, m := range []rootfs.Mount{{Type: rootfs.TypeRemount, Target: "/x"}, {Type: rootfs.TypeRemount, Target: "/x", Set: rootfs.ReadOnly, Size: 1}, {Type: rootfs.TypeRemount, Target: "/x", SetAll: rootfs.ReadOnly}} {
		if _, err := New(WithCommand("true"), WithMount(m)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}
