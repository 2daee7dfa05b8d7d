package caisson

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// A loaded container can be paused, measured and limited as by the program that made it.
func TestLifeOfALoadedContainer(t *testing.T) {
	needCgroup(t, cgroups.Pids|cgroups.Memory)
	d := stateDir(t)
	ctx := testContext(t)
	c := detached(t, d, "web", WithCommand("/bin/sleep", "1000"), WithMemory(64<<20))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.Close()
	noLeaks(t)
	c = load(t, d, "web")
	if st, err := c.Stats(ctx); err != nil || st.Pids.Current.Or(0) != 1 {
		t.Errorf("stats: %+v, %v", st, err)
	}
	if l, err := c.Top(ctx); err != nil || len(l) != 1 {
		t.Errorf("top: %+v, %v", l, err)
	}
	if err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 7}}); err != nil {
		t.Errorf("update: %v", err)
	}
	if err := c.Pause(ctx); err != nil || c.State() != StatePaused {
		t.Errorf("pause: %v, %v", err, c.State())
	}
	other := load(t, d, "web")
	if res := other.resources(); res.Pids.Max != 7 || res.Memory.Max != 64<<20 {
		t.Errorf("after an update elsewhere: %+v", res)
	}
	if m, ok := other.Isolation().Get("process limit"); !ok || m.Detail != "7" {
		t.Errorf("%+v", m)
	}
	if s := other.State(); s != StatePaused {
		t.Errorf("seen from elsewhere it is %v", s)
	}
	if l, err := d.List(ctx); err != nil || len(l) != 1 || l[0].State != StatePaused {
		t.Errorf("%+v, %v", l, err)
	}
	if err := other.Resume(ctx); err != nil {
		t.Errorf("resume: %v", err)
	}
	if s := c.State(); s != StateRunning {
		t.Error(s)
	}
	if err := c.Pause(ctx); err != nil {
		t.Error(err)
	}
	if err := other.Remove(ctx); err != nil { // a paused one
		t.Fatal(err)
	}
	// The other handle may have removed the record before this one has read it; then the kernel is asked, from 6.15 on.
	r, err := c.Wait(ctx)
	if unknown := errors.Is(err, ErrStatusUnknown) && !keepsStatus(); !unknown && (err != nil || r.Reason != ReasonStopped) {
		t.Errorf("%+v, %v", r, err)
	}
	if !testutil.Eventually(testTime, func() bool { return c.State() == StateStopped }) {
		t.Error(c.State())
	}
	c.Close()
}

// A process of a container that one program created and another started is in all namespaces of the container.
func TestExecInALoadedContainerThatWasCreated(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "x", WithCommand("sleep", "1000"), WithHostname("inside"))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l := load(t, d, "x")
	p, err := l.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := execs(t, l, "hostname; for n in mnt pid net ipc uts user cgroup; do readlink /proc/self/ns/$n; done")
	want := "inside\n"
	for _, n := range []string{"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"} {
		s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), n))
		if err != nil {
			t.Fatal(err)
		}
		want += s + "\n"
	}
	if out != want {
		t.Errorf("%s instead of\n%s", out, want)
	}
	if err := l.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
