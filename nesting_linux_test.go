package caisson

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
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
			WithEnv("PATH=/usr/bin:/bin", testutil.RoleEnv+"=filtered", "GORACE="+os.Getenv("GORACE"), rootEnv+"=/mnt/root", scenarioEnv+"=defaults")}, more...)
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

func TestNestingIsRefused(t *testing.T) {
	for name, opt := range map[string]Option{"host": WithNamespace(namespaces.User, namespaces.Host()), "alone": WithLandlockOnly(Landlock{})} {
		_, err := New(WithNesting(true), WithCommand("true"), opt)
		found := false
		for _, e := range flatten(err) {
			var o *OptionError
			found = found || errors.As(e, &o) && o.Option == "WithNesting"
		}
		if !found {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A program that uses this package works in a container that is made for it, root's and a user's.
func TestNestingOfThisPackage(t *testing.T) {
	if isRoot() {
		needIDMaps(t)
	}
	bin, root := copyOfTests(t), testutil.Busybox(t)
	opts := []Option{WithMount(hostLibraries()...), WithNesting(true), WithCommand("/mnt/tests"), WithMount(rootfs.ReadOnlyBindMount(bin, "/mnt/tests"), rootfs.BindMount(root, "/mnt/root")),
		WithEnv(testutil.RoleEnv+"=filtered", "GORACE="+os.Getenv("GORACE"), rootEnv+"=/mnt/root", scenarioEnv+"=defaults", vacateEnv+"=inner")}
	if err := newContainer(t, WithNesting(true), WithCommand("true")).Run(testContext(t)); err != nil { // makes what the program keeps
		t.Fatal(err)
	}
	noLeaks(t)
	c := newContainer(t, opts...)
	out, err := c.CombinedOutput(testContext(t))
	for _, w := range []string{"ns user of the host: false", "ns mnt of the host: false", "ns pid of the host: false", "Seccomp:\t2", "protected"} {
		if !strings.Contains(string(out), w) {
			t.Errorf("%q is not said", w)
		}
	}
	if m, ok := c.Isolation().Get("cgroup delegation"); ok && m.Status == Applied && !strings.Contains(string(out), "isolation: process limit applied") {
		t.Error("no limits, with a delegated cgroup")
	}
	if t.Failed() || err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// hostLibraries shows a program its C library, if it needs one.
func hostLibraries() []rootfs.Mount {
	var l []rootfs.Mount
	for _, d := range []string{"/lib", "/lib64"} {
		if real, err := filepath.EvalSymlinks(d); err == nil {
			l = append(l, rootfs.ReadOnlyBindMount(real, d))
		}
	}
	return l
}

// What is opened to the container is not open towards the host: root in it writes nothing there, and reads what any user may.
func TestNestingOpensNothingOutside(t *testing.T) {
	if isRoot() {
		needIDMaps(t)
	}
	if err := newContainer(t, WithNesting(true), WithCommand("true")).Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
	out := output(t, WithNesting(true), WithCommand("sh", "-c", `
for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches /proc/sys/kernel/panic /proc/sys/vm/memfd_noexec \
	/proc/irq/default_smp_affinity /proc/sys/fs/binfmt_misc/register /proc/1/oom_score_adj.not /sys/kernel/uevent_helper /sys/power/state; do
	(: >> $f) 2>/dev/null && echo "wrote $f"; done
for f in /proc/kcore /proc/kmsg /proc/kpageflags /proc/kpagecount /proc/slabinfo /proc/timer_list /sys/firmware/dmi/tables/DMI; do
	(head -c1 $f >/dev/null) 2>/dev/null && echo "read $f"; done
mknod /tmp/null c 1 3 2>/dev/null && (cat /tmp/null) 2>/dev/null && echo device
mkdir /tmp/m; for d in /dev/vda /dev/sda; do mount -t ext4 $d /tmp/m 2>/dev/null && echo mounted; done
for f in /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do
	[ -e $f ] && (echo 100000 > $f) 2>/dev/null && echo "limit $f"; done
hostname other && unshare -m mount -t tmpfs none /tmp/m && mount -t proc none /tmp/m && echo inside`))
	if out != "inside" {
		t.Errorf("%q", out)
	}
}
