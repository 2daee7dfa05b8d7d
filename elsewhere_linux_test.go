package caisson

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

func init() {
	ownRoles["stays"] = func(ctx context.Context, opts []Option) error {
		c, err := New(opts...)
		if err == nil {
			_, err = c.Start(ctx)
		}
		return err
	}
}

// elsewhere makes a group, and has a host program move into it before it does anything.
func elsewhere(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	g, err := cgroups.New(t.Context(), fmt.Sprintf("caisson-elsewhere-%d", os.Getpid()), cgroups.Resources{},
		cgroups.Config{Optional: cgroups.Pids | cgroups.Memory | cgroups.CPU | cgroups.CPUAcct | cgroups.Freezer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTime/2)
		defer cancel()
		if err := g.Kill(ctx); err != nil {
			t.Error(err)
		}
		if err := g.Delete(ctx); err != nil {
			t.Error(err)
		}
	})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := "set -e; "
	for _, dir := range g.Paths() {
		script += "echo 0 > " + dir + "/cgroup.procs; "
	}
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", script + `exec "$0"`, exe}
}

// A container that a program in other groups has made is found, entered, limited and removed from here, by its id, after
// that program was killed.
func TestLoadFromAnotherCgroup(t *testing.T) {
	testutil.NeedRoot(t)
	d, id := stateDir(t), fmt.Sprint("away", os.Getpid())
	cmd := detachHost(d, id, testutil.Busybox(t), "exec sleep 1000", "start", "CAISSON_TEST_MEMORY=67108864")
	elsewhere(t, cmd)
	startHostOf(t, cmd)()
	ctx := testContext(t)
	c := load(t, d, id)
	if c.State() != StateRunning {
		t.Fatal(c.State())
	}
	out := new(strings.Builder)
	p, err := c.Exec(ctx, WithCommand("/bin/cat", "/proc/self/cgroup"), WithStdout(out))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(ctx); err != nil || !r.Success() {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 33}}); err != nil {
		t.Error(err)
	}
	var inside string
	if !testutil.Eventually(testTime/4, func() bool { // the kernel counts what has ended a moment longer
		s, err := c.Stats(ctx)
		if err != nil {
			inside = err.Error()
			return false
		}
		inside = s.Pids.Current.String()
		return s.Pids.Current.Or(0) == 1
	}) {
		t.Error("processes inside:", inside)
	}
	limits := map[string]string{}
	for _, dir := range groupsOf(id) {
		for _, file := range []string{"pids.max", "memory.max", "memory.limit_in_bytes"} {
			if b, err := os.ReadFile(dir + "/" + file); err == nil {
				limits[strings.Replace(file, "limit_in_bytes", "max", 1)] = strings.TrimSpace(string(b))
			}
		}
	}
	if limits["pids.max"] != "33" || limits["memory.max"] != "67108864" {
		t.Errorf("its limits: %v", limits)
	}
	if err := c.Pause(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Resume(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx); err != nil {
		t.Error(err)
	}
	if g := groupsOf(id); len(g) > 0 {
		t.Errorf("left are %v", g)
	}
}

// What a program in other groups left when it was killed is removed from here.
func TestRecoverFromAnotherCgroup(t *testing.T) {
	testutil.NeedRoot(t)
	d, id := stateDir(t), fmt.Sprint("afar", os.Getpid())
	cmd := detachHost(d, id, testutil.Busybox(t), "exec sleep 1000", "stays", "CAISSON_TEST_MEMORY=67108864")
	elsewhere(t, cmd)
	kill := startHostOf(t, cmd)
	if len(groupsOf(id)) == 0 {
		t.Error("it has no groups")
	}
	kill()
	if !testutil.Eventually(testTime, func() bool {
		_, _ = Recover(testContext(t)) // of other programs too
		return len(groupsOf(id)) == 0
	}) {
		t.Errorf("left are %v", groupsOf(id))
	}
}
