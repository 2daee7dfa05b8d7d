package caisson

import (
	"context"
	"os"
	"strconv"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// BenchmarkDetached measures, in the default state directory, a container that outlives its program, from start to removal, beside one that does not.
func BenchmarkDetached(b *testing.B) {
	ctx := context.Background()
	for name, opts := range map[string][]Option{
		"attached": {},
		"detached": {WithDetached(true), WithID("bench-" + strconv.Itoa(os.Getpid()))},
	} {
		b.Run(name, func(b *testing.B) {
			c, err := New(append(opts, WithRootfs(rootfs.Dir(testutil.Busybox(b))), WithCommand("/bin/true"))...)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			for b.Loop() {
				if err := c.Run(ctx); err != nil {
					b.Fatal(err)
				}
			}
			if err := c.Remove(ctx); err != nil {
				b.Fatal(err)
			}
		})
	}
}
