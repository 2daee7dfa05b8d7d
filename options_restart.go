package caisson

import (
	"fmt"
	"os"
	"slices"
	"time"
)

// RestartMode says after which ends a command is started again.
type RestartMode int

// Modes. The zero value is RestartNo.
const (
	// RestartNo: never.
	RestartNo RestartMode = iota
	// RestartOnFailure: when it did not succeed ([Result.Success]), or could not be started again.
	RestartOnFailure
	// RestartAlways: in any case.
	RestartAlways
	// RestartUnlessStopped: in any case. It differs from RestartAlways for engines that start containers again when they
	// themselves are started; within one host program the two are the same.
	RestartUnlessStopped
)

var restartNames = [...]string{"no", "on-failure", "always", "unless-stopped"}

// String returns "on-failure" and the like, the names that Docker has.
func (m RestartMode) String() string {
	if m < 0 || int(m) >= len(restartNames) {
		return fmt.Sprintf("RestartMode(%d)", int(m))
	}
	return restartNames[m]
}

// MarshalText returns what String returns.
func (m RestartMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (m *RestartMode) UnmarshalText(b []byte) error {
	i := slices.Index(restartNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("caisson: unknown restart mode %q", b)
	}
	*m = RestartMode(i)
	return nil
}

// Backoff is how long is waited before a command is started again: Initial first, and twice as long each time after
// that, up to Max. It begins anew after a run of at least 10 seconds.
type Backoff struct {
	Initial time.Duration // default 100 ms
	Max     time.Duration // default 1 minute, or Initial if that is longer
}

const (
	defaultBackoff    = 100 * time.Millisecond
	defaultMaxBackoff = time.Minute
	backoffReset      = 10 * time.Second
)

// RestartPolicy says whether and how a command is started again when it has ended. The zero value: it is not.
type RestartPolicy struct {
	Mode RestartMode
	// MaxRetries is how often a command that fails is started again; 0: without limit. With RestartOnFailure only.
	MaxRetries int
	Backoff    Backoff
}

// WithRestart has the command started again by this program when it ends. Each run is a start of the container like any
// other: with a new throw-away layer, the same limits, and the times of [WithTimeout] and [WithCPUTime] from the beginning.
// The first start is not repeated: when it fails, Start fails. A later one that fails is tried again as a run that failed.
//
// Between two runs the container is in [StateRestarting]. [Container.Wait] and Run wait for the end of the last run and
// return its result; a [Process] is one run. [EventRestarted] tells of each, [Container.RestartCount] counts them.
//
// What ends the policy, so that no run follows: [Container.Stop], [Container.Close], Kill of the process, SIGKILL or the stop
// signal by [Container.Signal], and the end of the context of Run or [WithContext].
//
// It needs a program that lives, and therefore cannot be had with [WithDetached]; nor with pipes, or an input that is no
// file: these are for one run.
func WithRestart(policy RestartPolicy) Option {
	return option(func(s *spec) { s.restart = policy })
}

// filled is the policy with its defaults.
func (p RestartPolicy) filled() RestartPolicy {
	if p.Backoff.Initial == 0 {
		p.Backoff.Initial = defaultBackoff
		if p.Backoff.Max != 0 {
			p.Backoff.Initial = min(defaultBackoff, p.Backoff.Max)
		}
	}
	if p.Backoff.Max == 0 {
		p.Backoff.Max = max(defaultMaxBackoff, p.Backoff.Initial)
	}
	return p
}

// validateRestart finds what is wrong with the restart policy.
func (s *spec) validateRestart() (faults []error) {
	const name = "WithRestart"
	p, b := s.restart, s.restart.Backoff
	if p.Mode < RestartNo || p.Mode > RestartUnlessStopped {
		faults = append(faults, invalid(name, "%v is no mode", p.Mode))
	}
	if p.MaxRetries < 0 || p.MaxRetries > 0 && p.Mode != RestartOnFailure {
		faults = append(faults, invalid(name, "MaxRetries %d with mode %v: it is positive, and for mode on-failure", p.MaxRetries, p.Mode))
	}
	if b.Initial < 0 || b.Max < 0 || b.Max != 0 && b.Initial > b.Max {
		faults = append(faults, invalid(name, "backoff from %v to %v: negative, or the first above the last", b.Initial, b.Max))
	}
	if p.Mode == RestartNo {
		return faults
	}
	if _, file := s.process.stdin.(*os.File); s.process.stdin != nil && (!file || s.process.terminal) {
		faults = append(faults, invalid(name, "an input that is copied (WithStdin) is for one run: give an *os.File and no terminal, or nothing"))
	}
	return faults
}

// again reports whether another run follows one that ended so. count is how many restarts there were.
func (p RestartPolicy) again(success bool, count int) bool {
	switch p.Mode {
	case RestartAlways, RestartUnlessStopped:
		return true
	case RestartOnFailure:
		return !success && (p.MaxRetries == 0 || count < p.MaxRetries)
	}
	return false
}

// next is how long to wait, given how long it was the last time (0: not yet) and how long the command ran.
func (b Backoff) next(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= backoffReset {
		return b.Initial
	}
	if last > b.Max/2 {
		return b.Max
	}
	return 2 * last
}
