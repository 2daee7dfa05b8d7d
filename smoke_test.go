//go:build linux

package caisson

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/caisson-go/caisson/rootfs"
)

func TestSmoke(t *testing.T) {
	c, err := New(WithRootfs(rootfs.Dir("/var/cache/debroot")), WithCommand("/bin/sh", "-c", "id; hostname; cat /proc/self/status | grep -E 'Cap|Seccomp|NoNew'; ls -la /proc/self/fd /dev; cat /proc/self/mountinfo; echo hi > /x; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if os.Getenv("EXPLAIN") != "" {
		if err := c.Explain(os.Stdout); err != nil {
			t.Fatal(err)
		}
	}
	out, err := c.CombinedOutput(ctx)
	t.Logf("%s", out)
	t.Logf("%v", err)
	t.Logf("%v", c.Isolation())
	r, err := c.Wait(ctx)
	t.Logf("%+v %v", r, err)
}
