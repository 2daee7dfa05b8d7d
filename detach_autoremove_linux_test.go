package caisson

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/rootfs"
)

// A container that is to be removed when it has ended is gone when its end is told, and its result is known all the same.
func TestAutoRemove(t *testing.T) {
	for name, opts := range map[string][]Option{"keeper": nil, "no keeper": {WithoutKeeper()}} {
		t.Run(name, func(t *testing.T) {
			d := stateDir(t)
			noLeaks(t)
			c := detached(t, d, "web", append(opts, sh("exit 7"), WithAutoRemove(true))...)
			p, err := c.Start(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			r, err := p.Wait(testContext(t))
			if err != nil || r.ExitCode != 7 || r.Started.IsZero() || r.Ended.Before(r.Started) {
				t.Errorf("%+v, %v", r, err)
			}
			if _, err := os.Stat(filepath.Join(string(d), "web")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its directory is there: %v", err)
			}
			if _, err := d.Info(testContext(t), "web"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%v", err)
			}
			if st := c.State(); st != StateStopped {
				t.Error(st)
			}
			if err := c.Remove(testContext(t)); err != nil {
				t.Errorf("removed once more: %v", err)
			}
		})
	}
}

// Where the program that asked for it does not see the end, the container stays with its result.
func TestAutoRemoveByNobody(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", sh("read x; exit 7"), WithAutoRemove(true))
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	other := load(t, d, "web")
	if p, err = other.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if i, err := d.Info(testContext(t), "web"); err != nil || i.State != StateStopped || i.Result.ExitCode != 7 {
		t.Errorf("%+v, %v", i, err)
	}
	if err := other.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Info(testContext(t), "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestAutoRemoveJudged(t *testing.T) {
	for _, opts := range [][]Option{nil, {WithDetached(true), WithID("web"), WithMonitor(Monitor{Path: "/bin/true"})}} {
		if _, err := New(append(opts, WithRootfs(rootfs.Dir("/")), WithCommand("/bin/true"), WithAutoRemove(true))...); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
}

// The hooks of the end come after those of the start, also where the command has ended before these.
func TestAutoRemoveHooksInOrder(t *testing.T) {
	d, dir := stateDir(t), t.TempDir()
	noLeaks(t)
	c := detached(t, d, "web", sh("exit 0"), WithAutoRemove(true), WithHooks(&specs.Hooks{
		Poststart: []specs.Hook{shell(`pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); while test -d /proc/$pid; do sleep 0.05; done; echo started >>$1/calls`, dir)},
		Poststop:  []specs.Hook{shell("echo stopped >>$1/calls", dir)},
	}))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "calls")); err != nil || string(got) != "started\nstopped\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// A command that ends at once does not hold up its own start, nor the start the end.
func TestAutoRemoveAtOnce(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	rounds := 20
	if testing.Short() {
		rounds = 6
	}
	for _, opts := range [][]Option{nil, {WithoutKeeper()}} {
		for i := range rounds {
			var both sync.WaitGroup
			for n := range 2 {
				both.Go(func() {
					id := fmt.Sprint("at-once-", n)
					c := detached(t, d, id, append(opts, WithCommand("/bin/true"), WithAutoRemove(true))...)
					if i%2 == 1 {
						if _, err := c.Create(ctx); err != nil {
							t.Error(err)
							return
						}
					}
					p, err := c.Start(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					if r, err := p.Wait(ctx); err != nil || r.ExitCode != 0 {
						t.Errorf("%+v, %v", r, err)
					}
					if _, err := d.Info(ctx, id); !errors.Is(err, ErrNotFound) {
						t.Errorf("%v", err)
					}
				})
			}
			both.Wait()
			if t.Failed() {
				return
			}
		}
	}
}

// A created container that is killed while it is started is removed like any other.
func TestAutoRemoveKilledAtStart(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	for range 20 {
		c := detached(t, d, "web", sh("exit 0"), WithAutoRemove(true))
		p, err := c.Create(ctx)
		if err != nil {
			t.Fatal(err)
		}
		killed := make(chan error, 1)
		go func() { killed <- p.Kill() }()
		_, serr := c.Start(ctx)
		if err := <-killed; err != nil && !errors.Is(err, ErrState) {
			t.Error(err)
		}
		r, err := p.Wait(ctx)
		if err != nil || r.ExitCode != 0 && r.Signal != unix.SIGKILL {
			t.Errorf("%+v, %v; start: %v", r, err, serr)
		}
		if _, err := d.Info(ctx, "web"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
}
