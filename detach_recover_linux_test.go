package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/internal/testutil"
)

// durableNetwork is a network whose attachments can be undone by anyone.
type durableNetwork struct{ attached, detached, undone int }

func (n *durableNetwork) Prepare(context.Context, NetworkRequest) (NetworkAttachment, error) {
	return durableAttachment{&fakeNetwork{}, n}, nil
}

type durableAttachment struct {
	*fakeNetwork
	n *durableNetwork
}

func (a durableAttachment) Attach(context.Context, NetworkTarget) error { a.n.attached++; return nil }
func (a durableAttachment) Detach(context.Context) error                { a.n.detached++; return nil }
func (a durableAttachment) Record() (string, int, []byte) {
	return "test.net", 3, []byte(`{"if":"v0"}`)
}
func (n *durableNetwork) Name() string { return "test.net" }
func (n *durableNetwork) Undo(_ context.Context, version int, data []byte) error {
	if version != 3 || !strings.Contains(string(data), `"v0"`) {
		return fmt.Errorf("version %d, %s", version, data)
	}
	n.undone++
	return nil
}

func TestDetachedNetwork(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	c := detached(t, d, "plain", WithCommand("/bin/true"), WithNetwork(&fakeNetwork{}))
	var oe *OptionError
	if _, err := c.Start(ctx); !errors.As(err, &oe) || oe.Option != "WithNetwork" {
		t.Errorf("a network that nobody else can undo: %v", err)
	}
	n := &durableNetwork{}
	failing := detached(t, d, "failing", WithCommand("/no/such"), WithNetwork(n))
	if _, err := failing.Start(ctx); err == nil || n.detached != 1 {
		t.Errorf("%v, %+v", err, n)
	}
	*n = durableNetwork{}
	c = detached(t, d, "web", WithCommand("/bin/sleep", "1000"), WithNetwork(n))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if *n != (durableNetwork{attached: 1}) {
		t.Errorf("after it was let go of: %+v", n)
	}
	stranger := load(t, d, "web")
	var ue *UnclaimedError
	if err := stranger.Remove(ctx); !errors.As(err, &ue) || ue.Owner != "test.net" || ue.ID != "web" || ue.Version != 3 {
		t.Errorf("without the owner: %v", err)
	}
	if _, err := d.Recover(ctx); !errors.As(err, &ue) {
		t.Errorf("recover without the owner: %v", err)
	}
	if m, err := d.Recover(ctx, n); err != nil || m != 1 || n.undone != 1 {
		t.Errorf("recover with the owner: %d, %v, %+v", m, err, n)
	}
	if err := stranger.Remove(ctx); err != nil || n.undone != 1 {
		t.Errorf("%v, %+v", err, n)
	}
	own := detached(t, d, "own", WithCommand("/bin/true"), WithNetwork(n))
	if _, err := own.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := own.Remove(ctx); err != nil || n.detached != 1 {
		t.Errorf("%v, %+v", err, n)
	}
}

// A network that a removal has detached which then failed is not detached again, and nobody else is asked to undo it.
func TestRemoveAgainAfterDetach(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	n := &durableNetwork{}
	c := detached(t, d, "web", WithCommand("/bin/true"), WithNetwork(n))
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	record := func(resctrl string) {
		e, err := d.open("web")
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if err := changeEntry(e, func(rec *state.Record) bool { rec.Resctrl = []byte(resctrl); return true }); err != nil {
			t.Fatal(err)
		}
	}
	record(`"no group"`)
	if err := c.Remove(ctx); !errors.Is(err, ErrCorruptState) {
		t.Error(err)
	}
	record("")
	if err := c.Remove(ctx); err != nil || *n != (durableNetwork{attached: 1, detached: 1}) {
		t.Errorf("%v, %+v", err, n)
	}
}

// recorded reads what is recorded of a container.
func recorded(t *testing.T, d StateDir, id string) *state.Record {
	t.Helper()
	dir, err := state.Open(string(d), false)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	e, err := dir.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	rec, err := e.Read()
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// What nobody waited for is completed by Recover, once.
func TestRecoverCompletesResults(t *testing.T) {
	d, id := stateDir(t), fmt.Sprint("left", os.Getpid())
	dir := testutil.Busybox(t)
	if out, err := detachHost(d, id, dir, "exit 4", "start").Output(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	ctx := testContext(t)
	if !testutil.Eventually(testTime, func() bool {
		l, err := d.List(ctx)
		return err == nil && len(l) == 1 && l[0].State == StateStopped && l[0].Result.ExitCode == 4
	}) {
		t.Fatal("it does not end")
	}
	// A program that was so slow that it saw the end itself has recorded it, and may have ended before or after it removed what was left.
	seen := recorded(t, d, id).Phase == state.Stopped
	if n, err := d.Recover(ctx); err != nil || n != 1 && (n != 0 || !seen) {
		t.Errorf("%d, %v; recorded by the program: %v", n, err, seen)
	}
	if g := groupsOf(id); len(g) > 0 {
		t.Errorf("left: %v", g)
	}
	if n, err := d.Recover(ctx); n != 0 || err != nil {
		t.Errorf("once more: %d, %v", n, err)
	}
	l, err := d.List(ctx)
	if err != nil || len(l) != 1 || l[0].Result.Reason != ReasonExited || l[0].Result.ExitCode != 4 || l[0].Result.Wall <= 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	if m, err := cgroups.Default(); err == nil && isRoot() && m.Layout().Hierarchies != nil {
		if _, ok := l[0].Result.CPU.Get(); !ok {
			t.Errorf("%+v", l[0].Result)
		}
	}
}

// One record that cannot be read spoils no other, and nothing is done to it.
func TestRecordsThatCannotBeRead(t *testing.T) {
	d := stateDir(t)
	ctx := testContext(t)
	c := detached(t, d, "good", WithCommand("/bin/true"))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(string(d), "bad")
	if err := os.Mkdir(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(bad, "state.json")
	for text, want := range map[string]error{"{": ErrCorruptState, `{"version": 99}`: ErrStateVersion} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := d.List(ctx)
		if len(l) != 1 || l[0].ID != "good" || !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", text, l, err)
		}
		if _, err := d.Load(ctx, "bad"); !errors.Is(err, want) {
			t.Errorf("%s: load: %v", text, err)
		}
		if _, err := d.Recover(ctx); !errors.Is(err, want) {
			t.Errorf("%s: recover: %v", text, err)
		}
		again := detached(t, d, "bad", WithCommand("/bin/true"))
		if _, err := again.Start(ctx); !errors.Is(err, ErrExists) || !errors.Is(err, want) {
			t.Errorf("%s: start: %v", text, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("%s became %s, %v", text, b, err)
		}
	}
	if err := os.RemoveAll(bad); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(string(d), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(ctx, "good"); !errors.Is(err, journal.ErrUnsafeDir) {
		t.Errorf("a directory for everyone: %v", err)
	}
	if err := os.Chmod(string(d), 0o700); err != nil {
		t.Fatal(err)
	}
}

// Without its keeper the container lives on, and its status is what the kernel keeps of it, or unknown.
func TestKeeperKilled(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	c := detached(t, d, "web", WithCommand("/bin/sleep", "1000"))
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	keeper := keeperOf(c)
	if err := unix.Kill(keeper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !testutil.Eventually(testTime, func() bool { return !testutil.Alive(keeper) }) || !testutil.Alive(p.Pid()) {
		t.Fatal("the container's life hangs on its keeper's")
	}
	if err := c.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	r, err := c.Wait(ctx)
	if r == nil || err == nil && r.Signal != unix.SIGKILL || err != nil && !errors.Is(err, ErrStatusUnknown) {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}

// The default directory: Load, List and Recover find what is there.
func TestDefaultStateDir(t *testing.T) {
	id := fmt.Sprint("default-dir-", os.Getpid())
	ctx := testContext(t)
	c := newContainer(t, WithDetached(true), WithID(id), WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Remove(ctx); err != nil {
			t.Error(err)
		}
	}()
	if _, err := Recover(ctx); err != nil && strings.Contains(err.Error(), id) {
		t.Error(err)
	}
	l, _ := List(ctx)
	found := false
	for _, i := range l {
		found = found || i.ID == id && i.State == StateRunning && i.UID == os.Getuid()
	}
	if !found {
		t.Errorf("%+v", l)
	}
	o, err := Load(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if r, err := o.Wait(ctx); err != nil || r.Signal != unix.SIGKILL {
		t.Errorf("%+v, %v", r, err)
	}
	o.Close()
	if _, err := Load(ctx, "no-such-container"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// A look after a container that runs keeps nothing open, also where its processes are in a group below its own.
func TestRecoverKeepsNothingOpen(t *testing.T) {
	needCgroup(t, cgroups.Memory)
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	c := detached(t, d, "web", WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	g, err := c.run.group.New(ctx, mainGroup, cgroups.Resources{}, cgroups.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	before := testutil.Take()
	for range 3 {
		if n, err := d.Recover(ctx); n != 0 || err != nil {
			t.Error(n, err)
		}
	}
	before.Check(t)
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}
