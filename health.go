package caisson

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// HealthStatus is whether a container is well.
type HealthStatus int

// Statuses. The zero value is HealthNone.
const (
	// HealthNone: nothing is asked: [WithHealthCheck] was not given, or the command was never executed.
	HealthNone HealthStatus = iota
	// HealthStarting: no check has succeeded yet, and not enough have failed.
	HealthStarting
	// HealthHealthy: the last check succeeded, or too few have failed since.
	HealthHealthy
	// HealthUnhealthy: as many checks in a row as [HealthCheck].Retries have failed.
	HealthUnhealthy
)

var healthNames = [...]string{"none", "starting", "healthy", "unhealthy"}

// String returns "healthy" and the like.
func (h HealthStatus) String() string {
	if h < 0 || int(h) >= len(healthNames) {
		return fmt.Sprintf("HealthStatus(%d)", int(h))
	}
	return healthNames[h]
}

// MarshalText returns what String returns.
func (h HealthStatus) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (h *HealthStatus) UnmarshalText(b []byte) error {
	i := slices.Index(healthNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("caisson: unknown health status %q", b)
	}
	*h = HealthStatus(i)
	return nil
}

// HealthResult is the outcome of one check.
type HealthResult struct {
	Started, Ended time.Time
	// ExitCode is that of the command; -1 if it was killed, or could not be executed. For other checks 0 if they succeeded and 1 if
	// not.
	ExitCode int
	// Output is the beginning of what the command wrote, or of the answer to a GET, at most 4096 bytes. It comes from the
	// container and is not to be trusted.
	Output string
	// Err says what failed, other than by an exit code: it timed out, does not exist, or cannot be connected to.
	Err string
}

// Health is what the checks of a container have found in the current or last run.
type Health struct {
	Status HealthStatus
	// FailingStreak counts the checks that have failed since the last one that succeeded.
	FailingStreak int
	// Results are those of the last five checks, the oldest first.
	Results []HealthResult
}

const (
	maxHealthResults = 5
	maxHealthOutput  = 4096
)

// health is how a container fares in one run.
type health struct {
	mu sync.Mutex
	h  Health
}

// Health returns what the checks given by [WithHealthCheck] have found. After the end of a run it is what was known last.
func (c *Container) Health() Health {
	if c.spec.detach.followed() {
		return c.healthFollowed()
	}
	c.mu.Lock()
	now := c.health
	c.mu.Unlock()
	if now == nil {
		return Health{}
	}
	now.mu.Lock()
	defer now.mu.Unlock()
	h := now.h
	h.Results = slices.Clone(h.Results)
	return h
}

// beginHealth begins to ask a container whose command has just been executed. The caller holds the lock.
func (c *Container) beginHealth(p *Process, to State) {
	if c.spec.health == nil || c.spec.detach.followed() || to != StateRunning {
		return
	}
	now := &health{h: Health{Status: HealthStarting}}
	c.health = now
	c.checks.Go(func() { c.askHealth(now, p) })
}

// askHealth asks until the end of the run.
func (c *Container) askHealth(now *health, p *Process) {
	check, began := c.spec.health.filled(), time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		early := check.StartPeriod > 0 && time.Since(began) < check.StartPeriod && now.status() == HealthStarting
		wait := check.Interval
		if early {
			wait = check.StartInterval
		}
		t := time.NewTimer(wait)
		select {
		case <-p.done:
			t.Stop()
			return
		case <-t.C:
		}
		if c.State() == StatePaused {
			continue
		}
		r := c.askUntil(ctx, p, check)
		if r.failed() && p.endsSoon() {
			continue // the check ended with the container
		}
		if errors.Is(r.err, ErrState) {
			continue // paused meanwhile
		}
		counts := time.Since(began) >= check.StartPeriod
		status, changed := now.note(r.HealthResult, check.Retries, counts)
		if changed {
			c.emit(Event{Kind: EventHealth, Detail: status.String()})
		}
		if changed && status == HealthUnhealthy && check.End {
			if err := p.kill(ReasonUnhealthy); err != nil && c.spec.logTo() != nil {
				c.spec.logTo().Warn("caisson: end unhealthy container", "container", c.spec.id, "error", err)
			}
		}
	}
}

// asked is the outcome of a check, with the error as such.
type asked struct {
	HealthResult
	err error
}

func (r *asked) failed() bool { return r.ExitCode != 0 || r.err != nil }

// endsSoon reports whether the process is being ended, or ends within a moment: with it, all others in the container do, a
// little earlier.
func (p *Process) endsSoon() bool {
	p.mu.Lock()
	why := p.reason
	p.mu.Unlock()
	if why != ReasonUnknown {
		return true
	}
	for end := time.Now().Add(endPatience); ; {
		if p.h.ending() {
			return true
		}
		t := time.NewTimer(endPatience / 20)
		select {
		case <-p.done:
			t.Stop()
			return true
		case <-t.C:
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// endPatience is how long the end of a container may come after that of the other processes in it.
const endPatience = 200 * time.Millisecond

// askUntil asks once, until the process has ended or the time is over.
func (c *Container) askUntil(ctx context.Context, p *Process, check HealthCheck) asked {
	ctx, cancel := context.WithTimeout(ctx, check.Timeout)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	})
	return c.askOnce(ctx, check)
}

// askOnce performs the check once.
func (c *Container) askOnce(ctx context.Context, check HealthCheck) (r asked) {
	out := &headWriter{limit: maxHealthOutput}
	r.Started, r.ExitCode = time.Now(), -1
	defer func() {
		r.Ended, r.Output = time.Now(), out.String()
		if r.err != nil {
			r.Err = r.err.Error()
		}
	}()
	if len(check.Command) == 0 {
		if r.ExitCode, r.err = 0, c.askByDial(ctx, check, out); r.err != nil {
			r.ExitCode = 1
		}
		return r
	}
	p, err := c.Exec(ctx, WithCommand(check.Command[0], check.Command[1:]...), WithStdout(out), WithStderr(out),
		WithTimeout(check.Timeout), WithWaitDelay(time.Second))
	if err != nil {
		r.err = err
		return r
	}
	bound, cancel := context.WithTimeout(context.Background(), check.Timeout+healthGrace)
	defer cancel()
	res, err := p.Wait(bound)
	if res != nil {
		r.ExitCode = res.ExitCode
	}
	switch {
	case res == nil || res.Reason == ReasonUnknown:
		r.err = err
	case res.ExitCode < 0:
		r.err = errors.New(res.String())
	}
	return r
}

// healthGrace is how long a check that has timed out may take to end. A process inside that traces it can stop it at its end.
const healthGrace = 5 * time.Second

func (h *health) status() HealthStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.h.Status
}

// note takes a result down. Failures before the first success count only if counts says so.
func (h *health) note(r HealthResult, retries int, counts bool) (status HealthStatus, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := &h.h
	before := now.Status
	now.Results = append(now.Results, r)
	if n := len(now.Results) - maxHealthResults; n > 0 {
		now.Results = slices.Delete(now.Results, 0, n)
	}
	switch {
	case r.ExitCode == 0 && r.Err == "":
		now.Status, now.FailingStreak = HealthHealthy, 0
	case before == HealthStarting && !counts:
	default:
		now.FailingStreak++
		if now.FailingStreak >= retries {
			now.Status = HealthUnhealthy
		}
	}
	return now.Status, now.Status != before
}

// headWriter keeps the first bytes written to it.
type headWriter struct {
	mu    sync.Mutex
	buf   []byte
	limit int
}

func (w *headWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p[:min(len(p), w.limit-len(w.buf))]...)
	return len(p), nil
}

func (w *headWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.buf)
}
