package caisson

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// newRecycling makes a pool of one container.
func newRecycling(t *testing.T, opts ...Option) *Pool {
	t.Helper()
	return newPoolOf(t, PoolConfig{Size: 1, Recycle: true}, append([]Option{WithDroppedCapabilities("NET_RAW")}, opts...)...)
}

// recycles reports whether anything is handed on here: not where a module keeps what root writes below /proc/net.
func recycles(t *testing.T) bool {
	t.Helper()
	for _, dir := range []string{"/proc/self/net/rpc", "/proc/self/net/afs"} {
		if _, err := os.Stat(dir); err == nil {
			handsNothingOn(t)
			return false
		}
	}
	return true
}

// handsNothingOn runs containers of a pool that has nothing to hand on: they are as without it.
func handsNothingOn(t *testing.T, opts ...Option) {
	t.Helper()
	p := newRecycling(t, opts...)
	for range 3 {
		inNetwork(t, p, "true")
	}
	if s := p.Stats(); s.Recycled != 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// nextPooled runs a script in a container of a full pool: so the one after it is made when it has ended.
func nextPooled(t *testing.T, p *Pool, script string, opts ...Option) (string, *Result) {
	t.Helper()
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return pooled(t, p, script, opts...)
}

// inNetwork runs a script and returns in which network namespace.
func inNetwork(t *testing.T, p *Pool, script string, opts ...Option) string {
	t.Helper()
	out, r := nextPooled(t, p, "readlink /proc/self/ns/net; "+script, opts...)
	first, _, _ := strings.Cut(out, "\n")
	if !r.Success() || !strings.HasPrefix(first, "net:") {
		t.Fatalf("%s: %v\n%s", script, r, out)
	}
	return first
}

// A network namespace in which nothing was done is the next container's too, and one in which something was done is nobody's.
func TestPoolRecycles(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	if !recycles(t) {
		return
	}
	p := newRecycling(t)
	const see = "; grep lo: /proc/net/dev; cat /proc/net/snmp /proc/net/snmp6 /proc/net/netstat; head -n 1 /proc/net/sockstat"
	fresh, _ := nextPooled(t, p, "true"+see)
	one := inNetwork(t, p, "ulimit -n; touch /tmp/x; (sleep 1000 &)")
	if again := inNetwork(t, p, "true"); again != one {
		t.Errorf("%s was not handed on, %s instead", one, again)
	}
	if s := p.Stats(); s.Recycled < 2 {
		t.Errorf("%+v", s)
	}
	if now, _ := nextPooled(t, p, "true"+see); now != fresh {
		t.Errorf("the next one sees\n%s\nbut in a new one\n%s", now, fresh)
	}
	for _, does := range []string{
		"busybox nc 127.0.0.1 9 2>&1 | grep refused",
		"busybox nc ::1 9 2>&1 | grep refused",
		"busybox nc 192.0.2.1 9 2>&1 | grep unreachable",
		"busybox nc -l -p 9 & until busybox nc 127.0.0.1 9 </dev/null; do busybox sleep 0.01; done",
	} {
		used := inNetwork(t, p, does)
		if next := inNetwork(t, p, "true"); next == used {
			t.Errorf("handed on after %s", does)
		}
		if now, _ := nextPooled(t, p, "true"+see); now != fresh {
			t.Errorf("after %s the next one sees\n%s\nbut in a new one\n%s", does, now, fresh)
		}
	}
	// What a command with more capabilities does is not all seen.
	for name, does := range map[string]string{"NET_ADMIN": "busybox ip addr add 10.1.2.3/32 dev lo", "NET_RAW": "true"} {
		used := inNetwork(t, p, does, WithCapabilities(name))
		if next := inNetwork(t, p, "! busybox ip addr | grep 10.1.2.3"); next == used {
			t.Errorf("handed on by a command with CAP_%s", name)
		}
	}
	// Who has a container can do more in it than its command.
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c := get(t, p, sh("readlink /proc/self/ns/net"))
	out, err := c.Output(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if next := inNetwork(t, p, "true"); next == strings.TrimSpace(string(out)) {
		t.Error("handed on by a container of Get")
	}
}

// Isolation says whose network namespace it was.
func TestPoolRecyclesSaysSo(t *testing.T) {
	testutil.NeedRoot(t)
	if !recycles(t) {
		return
	}
	p := newRecycling(t)
	nextPooled(t, p, "true")
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c := get(t, p, sh("true"))
	if m, ok := c.Isolation().Get("network namespace"); !ok || m.Status != Applied || !strings.Contains(m.Detail, "another container of the pool") {
		t.Errorf("%v %v", m, ok)
	}
	n := 0
	for _, m := range c.Isolation() {
		if m.Name == "network namespace" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("said %d times", n)
	}
}

// Where nothing can be handed on, containers are as without it.
func TestPoolRecyclesNothing(t *testing.T) {
	handsNothingOn(t, WithNamespaces(namespaces.Set{User: namespaces.New()}))
}

func TestPoolRecycleRefuses(t *testing.T) {
	for name, o := range map[string]Option{
		"WithNetwork":       WithNetwork(&fakeNetwork{}),
		"WithHook":          WithHook(HookStarted, func(context.Context, *HookState) error { return nil }),
		"WithSeccompNotify": WithSeccompNotify(func(context.Context, *SeccompNotification) {}, "mkdir"),
		"WithNesting":       WithNesting(true),
		"WithReadOnlyPaths": WithReadOnlyPaths(),
		"WithNamespaces":    WithNamespaces(namespaces.Set{PID: namespaces.Host()}),
		"WithMount":         WithMount(rootfs.BindMount("/proc/sys", "/x")),
	} {
		if _, err := NewPool(PoolConfig{Size: 1, Recycle: true}, o); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "Recycle") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p := rootfs.MinimalMounts(); slices.ContainsFunc(p, showsKernel) || !showsKernel(rootfs.DefaultMounts()[0]) {
		t.Error("proc that shows processes only, or not")
	}
	for dir, want := range map[string]bool{"/": true, "/proc": true, "/sys/": true, "/x/../proc/sys": true, "/process": false, "/usr": false} {
		if showsKernel(rootfs.BindMount(dir, "/x")) != want {
			t.Errorf("%s: not %v", dir, want)
		}
	}
}

// The cgroup of a container that has ended is the next one's too, with the limits and without the figures of before. One in which more was done is nobody's.
func TestPoolRecyclesCgroups(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	p := newRecycling(t, WithMemory(64<<20), WithPids(50))
	handedOn := func(script string, opts ...Option) (bool, *Result) {
		t.Helper()
		before := p.Stats().RecycledCgroups
		_, r := nextPooled(t, p, script, opts...)
		if err := p.Ready(testContext(t)); err != nil { // the next one has been made then
			t.Fatal(err)
		}
		return p.Stats().RecycledCgroups > before, r
	}
	// What has ended may be charged for some time.
	quiet := func() (r *Result) {
		t.Helper()
		for ctx := testContext(t); ctx.Err() == nil; {
			var yes bool
			if yes, r = handedOn("true"); yes {
				return r
			}
		}
		t.Fatal("not handed on")
		return nil
	}
	const work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; x=$(busybox head -c 20000000 /dev/zero | busybox tr '\\000' x); echo ${#x} >/dev/null"
	_, worked := handedOn(work)
	if !renewable(t, p.ready[0].run.group) {
		return
	}
	quiet()
	r := quiet()
	if cpu, was := r.CPU.Or(0), worked.CPU.Or(0); cpu == 0 || cpu > was/2 {
		t.Errorf("CPU time of %s after %s", cpu, was)
	}
	if peak, was := r.PeakMemory.Or(0), worked.PeakMemory.Or(0); peak == 0 || peak > was/2 || was < 20_000_000 {
		t.Errorf("%d bytes after %d", peak, was)
	}
	if m, ok := p.ready[0].Isolation().Get("cgroup"); !ok || m.Status != Applied || !strings.Contains(m.Detail, "another container of the pool") {
		t.Errorf("%v %v", m, ok)
	}
	// The limits hold as before.
	if _, r := handedOn("x=$(busybox head -c 100000000 /dev/zero | busybox tr '\\000' x); echo ${#x}"); r.Reason != ReasonOOM && r.OOMKills.Or(0) == 0 {
		t.Errorf("more memory than the limit: %v", r)
	}
	for name, c := range map[string]struct {
		script string
		opts   []Option
	}{
		"out of memory":   {"exec busybox tail /dev/zero", nil},
		"too many":        {"for i in $(busybox seq 100); do busybox sleep 1000 & done", nil},
		"other limits":    {"true", []Option{WithMemory(32 << 20)}},
		"capabilities":    {"true", []Option{WithCapabilities("SYS_ADMIN")}},
		"no seccomp":      {"true", []Option{WithoutSeccomp()}},
		"seccomp profile": {"true", []Option{WithSeccomp(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow})}},
	} {
		if yes, r := handedOn(c.script, c.opts...); yes {
			t.Errorf("%s: handed on after %v", name, r)
		}
		quiet()
	}
	// Nor one whose command can write to it.
	for name, o := range map[string]Option{
		"cgroups":         WithMount(rootfs.Mount{Type: rootfs.TypeCgroup, Target: "/sys/fs/cgroup"}),
		"host namespace":  WithNamespaces(namespaces.Set{Cgroup: namespaces.Host()}),
		"delegated group": WithCgroup(CgroupConfig{Delegate: true}),
	} {
		q := newRecycling(t, o)
		for range 3 {
			nextPooled(t, q, "true")
		}
		if n := q.Stats().RecycledCgroups; n != 0 {
			t.Errorf("%s: handed on %d times", name, n)
		}
	}
	c := get(t, p, sh("true"))
	before := p.Stats().RecycledCgroups
	if err := errors.Join(c.Run(testContext(t)), c.Close(), p.Ready(testContext(t))); err != nil {
		t.Fatal(err)
	}
	if p.Stats().RecycledCgroups != before {
		t.Error("handed on by a container of Get")
	}
}

// renewable reports whether groups like that of g can be handed on: see [cgroups.Group.Renew].
func renewable(t *testing.T, g *cgroups.Group) bool {
	t.Helper()
	for _, dir := range g.Paths() {
		if info, err := os.Stat(dir + "/memory.peak"); err == nil && info.Mode().Perm()&0o200 == 0 || strings.Contains(dir, ".scope/") {
			return false
		}
	}
	return true
}
