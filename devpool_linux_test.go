package caisson

import (
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// With a /dev from a pool a container sees what it sees without; and where the pool has none that fits, too.
func TestDevicesFromPool(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root")
	}
	src := WithRootfs(rootfs.Dir(testutil.Busybox(t)))
	look := sh("ls -l /dev | sed 's/ [A-Z][a-z][a-z] .*:.. / /'; grep -E ' /dev[/ ]' /proc/mounts; echo x >/dev/null && head -c 3 /dev/zero | wc -c; umask")
	fifo := WithDevice(rootfs.Device{Path: "/dev/pipe", FIFO: true, Mode: 0o640})
	want, more := output(t, src, look), output(t, src, fifo, look)
	p, err := rootfs.NewDevPool(rootfs.DevPoolConfig{Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	use := func(want string, taken bool, opts ...Option) {
		t.Helper()
		if !testutil.Eventually(testTime, func() bool { return p.Stats().Ready == 2 }) {
			t.Fatalf("%+v", p.Stats())
		}
		made := p.Stats().Made
		if got := output(t, append(opts, src, WithDevPool(p))...); got != want {
			t.Errorf("%s\ninstead of\n%s", got, want)
		}
		if taken && !testutil.Eventually(testTime, func() bool { return p.Stats().Made > made }) {
			t.Errorf("%+v", p.Stats())
		}
		if !taken && p.Stats().Made != made {
			t.Error("one was taken")
		}
	}
	for range 3 { // the second time from the program that is remembered
		use(want, true, look)
	}
	use(more, true, fifo, look)
	use("ok", false, WithNamespace(namespaces.User, namespaces.New()), sh("echo ok"))
	c, err := New(src, WithDevPool(p), sh("true"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // each start takes one
		if err := c.Run(testContext(t)); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
