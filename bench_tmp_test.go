package caisson

import (
	"context"
	"testing"

	"github.com/caisson-go/caisson/rootfs"
)

func BenchmarkTmpRun(b *testing.B) {
	c, err := New(WithRootfs(rootfs.Dir("/tmp/w/t0root")), WithCommand("/bin/t0"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		if err := c.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
