package caisson

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// HealthCheck says how a container is asked whether it is well. Times that are 0 have their default; none may be negative.
type HealthCheck struct {
	// Command is executed inside by [Container.Exec], with the container's own user, environment and limits. Exit code 0
	// means well. Exactly one of Command, TCP and HTTP is set.
	Command []string
	// TCP is an address inside, such as "127.0.0.1:5432" or "localhost:80", as [Container.Dial] takes it. That a connection is made
	// means well.
	TCP string
	// HTTP is an address inside, such as "http://127.0.0.1:8080/healthz": a GET that is answered with a status from 200 to 399
	// means well. Redirections are not followed; https is not spoken.
	HTTP string
	// Interval is the time between the end of a check and the next one; the first comes that long after the start. Default:
	// 30 seconds.
	Interval time.Duration
	// Timeout is how long a check may take; it is killed then and counts as failed. Default: 30 seconds.
	Timeout time.Duration
	// StartPeriod is how long after the start checks that fail do not count, until one has succeeded. Default: none.
	StartPeriod time.Duration
	// StartInterval takes the place of Interval during StartPeriod, until a check has succeeded. Default: 5 seconds.
	StartInterval time.Duration
	// Retries is how many checks in a row must fail for the container to be unhealthy. Default: 3.
	Retries int
	// End has a container that has become unhealthy killed ([ReasonUnhealthy]), so that its restart policy starts it again.
	// Needs [WithRestart].
	End bool
}

// WithHealthCheck has this program ask the running container again and again whether it is well: see [Container.Health]
// and [EventHealth]. Nothing else follows from the answer, unless End is set. While the container is paused it is not asked; with
// [WithRestart] each run begins anew.
//
// It needs a program that lives, and therefore cannot be had with [WithDetached]; nor with [WithLandlockOnly].
func WithHealthCheck(check HealthCheck) Option {
	check.Command = slices.Clone(check.Command)
	return option(func(s *spec) { s.health = &check })
}

const (
	defaultHealthInterval = 30 * time.Second
	defaultHealthTimeout  = 30 * time.Second
	defaultStartInterval  = 5 * time.Second
	defaultHealthRetries  = 3
)

// validateHealth finds what is wrong with the health check.
func (s *spec) validateHealth() (faults []error) {
	h := s.health
	if h == nil {
		return nil
	}
	const name = "WithHealthCheck"
	if given(len(h.Command) > 0)+given(h.TCP != "")+given(h.HTTP != "") != 1 {
		faults = append(faults, invalid(name, "exactly one of Command, TCP and HTTP says how"))
	} else if err := h.target(); err != nil {
		faults = append(faults, &OptionError{name, err})
	}
	if h.End && s.restart.Mode == RestartNo {
		faults = append(faults, invalid(name, "End needs WithRestart, which starts the command again"))
	}
	if min(h.Interval, h.Timeout, h.StartPeriod, h.StartInterval) < 0 || h.Retries < 0 {
		faults = append(faults, invalid(name, "a time or the number of retries is negative"))
	}
	if s.alone {
		faults = append(faults, invalid(name, "without namespaces (WithLandlockOnly) there is nothing that a check could be executed in"))
	}
	return faults
}

func given(b bool) int {
	if b {
		return 1
	}
	return 0
}

// target checks what is asked.
func (h *HealthCheck) target() error {
	switch {
	case h.TCP != "":
		return checkHostPort(h.TCP)
	case h.HTTP != "":
		_, err := parseHTTP(h.HTTP)
		return err
	case h.Command[0] == "" || slices.ContainsFunc(h.Command, func(a string) bool { return strings.ContainsRune(a, 0) }):
		return fmt.Errorf("%w: command %q: empty, or with a NUL byte", ErrInvalid, h.Command)
	}
	return nil
}

// checkHostPort refuses what Dial would.
func checkHostPort(address string) error {
	if _, err := parseIP(context.Background(), "tcp", address, true); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrInvalid, address, err)
	}
	return nil
}

// httpTarget is what a GET asks, and whom.
type httpTarget struct{ address, host, path string }

// parseHTTP reads an address of the form http://host[:port][/path[?query]].
func parseHTTP(url string) (t httpTarget, err error) {
	bad := func(why string) (httpTarget, error) { return t, fmt.Errorf("%w: %.200q: %s", ErrInvalid, url, why) }
	rest, ok := strings.CutPrefix(url, "http://")
	if !ok {
		return bad("it does not begin with http://")
	}
	if strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return bad("only printable ASCII without spaces can be sent")
	}
	t.host, t.path = rest, "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		t.host, t.path = rest[:i], strings.TrimSuffix(rest[i:], "#")
	}
	if t.path[0] == '?' {
		t.path = "/" + t.path
	}
	if strings.ContainsRune(t.path, '#') || strings.ContainsRune(t.host, '@') || t.host == "" {
		return bad("fragments and user names cannot be sent, and a host is needed")
	}
	t.address = t.host
	if i := strings.LastIndexByte(t.host, ':'); i < 0 || strings.HasSuffix(t.host, "]") {
		t.address += ":80"
	}
	return t, checkHostPort(t.address)
}

// filled is the check with its defaults.
func (h HealthCheck) filled() HealthCheck {
	for _, d := range []struct {
		at    *time.Duration
		usual time.Duration
	}{{&h.Interval, defaultHealthInterval}, {&h.Timeout, defaultHealthTimeout}, {&h.StartInterval, defaultStartInterval}} {
		if *d.at == 0 {
			*d.at = d.usual
		}
	}
	if h.Retries == 0 {
		h.Retries = defaultHealthRetries
	}
	return h
}
