package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

const (
	bornGroupEnv = "CAISSON_TEST_BORN_GROUP"
	bornDoEnv    = "CAISSON_TEST_BORN_DO"
)

func init() { roles["born"] = bornRole }

// bornRole enters a group that has been killed, and starts containers there.
func bornRole() {
	err := os.WriteFile(os.Getenv(bornGroupEnv)+"/cgroup.procs", []byte("0"), 0)
	if err == nil {
		err = startBorn(os.Getenv(bornDoEnv))
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("fine")
}

func startBorn(do string) error {
	ctx, dir, root := context.Background(), os.Getenv(dirEnv), WithRootfs(rootfs.Dir(os.Getenv(rootEnv)))
	switch do {
	case "run":
		c, err := New(root, WithCommand("/bin/true"))
		if err != nil {
			return err
		}
		return errors.Join(c.Run(ctx), c.Close())
	case "detached":
		c, err := New(root, WithCommand("/bin/sleep", "1000"), WithDetached(true), WithStateDir(dir), WithID("born"))
		if err != nil {
			return err
		}
		_, err = c.Start(ctx)
		return errors.Join(err, c.Close())
	case "exec":
		c, err := StateDir(dir).Load(ctx, "born")
		if err != nil {
			return err
		}
		p, err := c.Exec(ctx, WithCommand("/bin/true"), WithPids(10))
		if err == nil {
			var r *Result
			if r, err = p.Wait(ctx); err == nil && !r.Success() {
				err = errors.New(r.String())
			}
		}
		return errors.Join(err, c.Remove(ctx), c.Close())
	case "pool":
		p, err := NewPool(PoolConfig{Size: 1}, root)
		if err != nil {
			return err
		}
		_, err = p.Run(ctx, WithCommand("/bin/true"))
		return errors.Join(err, p.Close())
	}
	return fmt.Errorf("%q is unknown", do)
}

// In a group that has been killed by cgroup.kill before, recent kernels kill what is born in another one: containers start all the same.
func TestBornInAnotherGroup(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	g, err := cgroups.New(testContext(t), fmt.Sprintf("caisson-born-%d", os.Getpid()), cgroups.Resources{}, cgroups.Config{Controllers: cgroups.CPUAcct})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(g.Kill(testContext(t)), g.Delete(testContext(t))); err != nil {
			t.Error(err)
		}
	}()
	var at string
	for _, dir := range g.Paths() {
		if unix.Access(dir+"/cgroup.kill", unix.F_OK) == nil {
			at = dir
		}
	}
	if at == "" {
		t.Fatal("the group is in no v2 hierarchy, which every machine these tests are for has")
	}
	if err := g.Kill(testContext(t)); err != nil {
		t.Fatal(err)
	}
	d := stateDir(t)
	for _, do := range []string{"run", "detached", "exec", "pool"} {
		cmd := testutil.Role("born", bornGroupEnv+"="+at, bornDoEnv+"="+do, rootEnv+"="+testutil.Busybox(t), dirEnv+"="+string(d))
		if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != "fine" {
			t.Errorf("%s: %v\n%s", do, err, out)
		}
	}
}
