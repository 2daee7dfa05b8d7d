package image

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// Who asks what snapshots and leases there are is in nobody's way, and brings nothing back that another removes meanwhile.
func TestAskingDisturbsNobody(t *testing.T) {
	testutil.NoLeaks(t)
	ctx, cancel := context.WithCancel(context.Background())
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("x", "x"))))
	sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "a", "a", SnapshotOptions{ReadOnly: true}))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Snapshots(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for range 25 {
		v, err := sn.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		v.Close()
		d, err := s.Rootfs("a").Lease("box").Describe(ctx, rootfs.Env{})
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
		if err := s.DropLease(ctx, "box"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(s.path(dirLeases)); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}
