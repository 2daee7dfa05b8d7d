package caisson

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// soon restarts without losing time.
var soon = Backoff{Initial: time.Millisecond, Max: 5 * time.Millisecond}

func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy RestartPolicy
		code   string
		count  int
	}{
		{"no", RestartPolicy{}, "3", 0},
		{"failure", RestartPolicy{Mode: RestartOnFailure, MaxRetries: 2, Backoff: soon}, "3", 2},
		{"success", RestartPolicy{Mode: RestartOnFailure, Backoff: soon}, "0", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			ctx, out := testContext(t), &buffer{}
			x := newContainer(t, WithRestart(c.policy), WithStdout(out), sh("echo run; exit "+c.code))
			l := listen(ctx, x)
			var exit *ExitError
			if err := x.Run(ctx); (c.code != "0") != errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := strings.Count(out.String(), "run"); got != c.count+1 || x.RestartCount() != c.count || x.State() != StateStopped {
				t.Errorf("%d runs, %d restarts, %v", got, x.RestartCount(), x.State())
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			<-l.done
			want := "started exited" + strings.Repeat(" started restarted exited", c.count)
			if got := l.kinds(); strings.Count(got, "restarted") != c.count || len(strings.Fields(got)) != len(strings.Fields(want)) {
				t.Errorf("%s", got)
			}
		})
	}
}

// Whatever ends the policy, no run follows, and Wait returns.
func TestRestartEnds(t *testing.T) {
	for name, end := range map[string]func(context.Context, *Container) error{
		"stop":   func(ctx context.Context, c *Container) error { return c.Stop(ctx, 0) },
		"grace":  func(ctx context.Context, c *Container) error { return c.Stop(ctx, time.Second) },
		"signal": func(_ context.Context, c *Container) error { return c.Signal(syscall.SIGKILL) },
		"close":  func(_ context.Context, c *Container) error { return c.Close() },
	} {
		for _, script := range []string{"exit 1", "trap 'exit 0' TERM; while :; do sleep 0.01; done"} {
			t.Run(name+"/"+script[:4], func(t *testing.T) {
				noLeaks(t)
				ctx := testContext(t)
				c, _ := start(t, ctx, WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: soon}), sh(script))
				if script == "exit 1" && !testutil.Eventually(testTime, func() bool { return c.RestartCount() > 2 }) {
					t.Fatal("not restarted")
				}
				if err := end(ctx, c); err != nil && !errors.Is(err, ErrState) {
					t.Fatal(err)
				}
				if _, err := c.Wait(ctx); err != nil && !errors.Is(err, ErrStopped) {
					t.Fatal(err)
				}
				if s := c.State(); s != StateStopped && s != StateClosed {
					t.Error(s)
				}
			})
		}
	}
}

func TestRestartKillAndContext(t *testing.T) {
	noLeaks(t)
	always := WithRestart(RestartPolicy{Mode: RestartUnlessStopped, Backoff: soon})
	c, p := start(t, testContext(t), always, WithCommand("/bin/sleep", "1000"))
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(testContext(t)); err != nil || r.Reason != ReasonStopped || c.RestartCount() != 0 {
		t.Errorf("%v %v, %d restarts", r, err, c.RestartCount())
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	c = newContainer(t, always, sh("exit 1"))
	go func() {
		testutil.Eventually(testTime, func() bool { return c.RestartCount() > 1 })
		cancel()
	}()
	if err := c.Run(ctx); err == nil {
		t.Error("Run returns nil")
	}
	if s := c.State(); s != StateStopped {
		t.Error(s)
	}
}

// Between two runs the container is restarting, and another start is refused.
func TestStateRestarting(t *testing.T) {
	noLeaks(t)
	c, p := start(t, testContext(t), WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: Backoff{Initial: time.Hour}}), sh("exit 5"))
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 5 {
		t.Fatal(r, err)
	}
	if s := c.State(); s != StateRestarting {
		t.Error(s)
	}
	if _, err := c.Start(testContext(t)); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if err := c.Stop(testContext(t), time.Hour); err != nil {
		t.Error(err)
	}
	if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 5 || c.State() != StateStopped {
		t.Error(r, err, c.State())
	}
}

func TestRestartCreated(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, WithRestart(RestartPolicy{Mode: RestartOnFailure, MaxRetries: 1, Backoff: soon}), sh("exit 1"))
	if _, err := c.Create(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(ctx); err != nil || c.RestartCount() != 1 {
		t.Error(err, c.RestartCount())
	}
	if _, err := c.Create(ctx); err != nil { // and is given up
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestRestartInvalid(t *testing.T) {
	for _, o := range []Option{
		WithRestart(RestartPolicy{Mode: 9}),
		WithRestart(RestartPolicy{Mode: RestartAlways, MaxRetries: 1}),
		WithRestart(RestartPolicy{Mode: RestartOnFailure, MaxRetries: -1}),
		WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: Backoff{Initial: 2, Max: 1}}),
		Options(WithRestart(RestartPolicy{Mode: RestartAlways}), WithStdin(strings.NewReader(""))),
		Options(WithRestart(RestartPolicy{Mode: RestartAlways}), WithID("x"), WithDetached(true)),
	} {
		var oe *OptionError
		if _, err := New(WithCommand("/bin/true"), o); !errors.As(err, &oe) || oe.Option != "WithRestart" {
			t.Error(err)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := RestartPolicy{}.filled().Backoff
	var last time.Duration
	for i, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
		if last = b.next(last, 0); last != want {
			t.Errorf("%d: %v", i, last)
		}
	}
	if d := b.next(50*time.Second, 0); d != time.Minute {
		t.Error(d)
	}
	if d := b.next(50*time.Second, backoffReset); d != b.Initial {
		t.Error(d)
	}
}
