package caisson

import (
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// A program in a container can start containers itself, if the outer one grants what that takes. docs/nesting.md says
// the same in words.
func TestNesting(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	bin, root := copyOfTests(t), testutil.Busybox(t)
	outer := func(more ...Option) []Option {
		return append([]Option{WithRootfs(rootfs.Dir("/")), WithCommand("/mnt/tests"),
			WithMount(rootfs.ReadOnlyBindMount(bin, "/mnt/tests"), rootfs.BindMount(root, "/mnt/root")),
			WithEnv("PATH=/usr/bin:/bin", testutil.RoleEnv+"=filtered", rootEnv+"=/mnt/root", scenarioEnv+"=defaults")}, more...)
	}
	for name, tt := range map[string]struct {
		outer []Option
		want  []string
	}{
		"defaults": {outer(), []string{"error:", "remedy:", "seccomp"}},
		// The default profile allows mounting to the holder of CAP_SYS_ADMIN, but pivot_root to nobody.
		"capabilities": {outer(WithCapabilities("ALL")), []string{"error:", "allow pivot_root"}},
		"writable cgroups": {outer(WithEnv(vacateEnv+"=inner"), WithCapabilities("ALL"), WithoutSeccomp(), WithMount(rootfs.Mount{Type: rootfs.TypeCgroup,
			Target: "/sys/fs/cgroup", Set: rootfs.NoSuid | rootfs.NoDev | rootfs.NoExec})), []string{"isolation: process limit applied"}},
		"no filter":             {outer(WithCapabilities("ALL"), WithoutSeccomp()), []string{"ns mnt of the host: false", "Seccomp:\t2", "protected"}},
		"user without a filter": {outer(WithoutSeccomp(), WithUser("65534:65534")), []string{"error:", "unmasked /proc"}},
		"user, /proc unmasked": {outer(WithoutSeccomp(), WithUser("65534:65534"), WithMaskedPaths(), WithReadOnlyPaths()),
			[]string{"ns user of the host: false", "ns mnt of the host: false", "Seccomp:\t2"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(tt.outer...)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			out, err := c.CombinedOutput(testContext(t))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, w := range tt.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("%q is not said in\n%s", w, out)
					break
				}
			}
			t.Logf("%s", out)
		})
	}
}
