package caisson

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
)

// lentRole has a container in a group of somebody's, for which a controller has to be enabled there.
func lentRole(ctx context.Context, opts []Option) error {
	c, err := New(append(opts, WithCgroup(CgroupConfig{Parent: os.Getenv("CAISSON_TEST_GROUP")}),
		WithResources(cgroups.Resources{HugeTLB: map[string]int64{"2MB": 4 << 20}}))...)
	if err != nil {
		return err
	}
	if _, err := c.Start(ctx); err != nil {
		return err
	}
	return c.Close()
}

// lender makes a group of somebody's that has hugetlb and does not hand it on. It returns its path, and its v2 directory.
func lender(t *testing.T) (name, dir string) {
	t.Helper()
	if !isRoot() {
		t.Skip("needs root")
	}
	m, err := cgroups.Default()
	if err != nil {
		t.Fatal(err)
	}
	unified := m.Layout().Hierarchies[0]
	if unified.Version != 2 || !unified.Controllers.Has(cgroups.HugeTLB) {
		t.Skip("no v2 group can have the controller hugetlb here")
	}
	g, err := cgroups.New(t.Context(), "caisson-lender-"+strconv.Itoa(os.Getpid()), cgroups.Resources{},
		cgroups.Config{Parent: "/", Controllers: cgroups.HugeTLB | cgroups.Memory | cgroups.Pids | cgroups.CPUAcct | cgroups.Freezer | cgroups.Devices})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	dir = g.Paths()[unified.Name]
	return strings.TrimPrefix(dir, unified.Mountpoint), dir
}

// What a killed program enabled in a group of somebody's is taken back by Recover, wherever it was killed.
func TestKilledLeavesControllers(t *testing.T) {
	group, dir := lender(t)
	t.Setenv("CAISSON_TEST_GROUP", group)
	enabled := func() string {
		b, err := os.ReadFile(dir + "/cgroup.subtree_control")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := enabled()
	k := newKilling(t, "lent")
	k.everywhere(3, func(n int, said string) {
		if after := enabled(); after != before {
			t.Fatalf("killed at %d, which said %q: enabled before %q, after %q", n, said, before, after)
		}
	})
}
