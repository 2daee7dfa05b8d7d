package caisson

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// setClock moves the machine's clock by d for the rest of the test.
func setClock(t *testing.T, d time.Duration) {
	t.Helper()
	shift := func(d time.Duration) {
		ts := unix.NsecToTimespec(time.Now().Add(d).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			t.Fatal(err)
		}
	}
	shift(d)
	t.Cleanup(func() { shift(-d) })
}

// A clock that jumps neither ends a container nor keeps one alive: limits of time are by clocks that do not.
func TestClockJumps(t *testing.T) {
	if os.Getenv(sysctlsEnv) != "1" || !isRoot() {
		t.Skip("changes settings of the whole machine: only with " + sysctlsEnv + "=1, in a virtual machine")
	}
	for name, jump := range map[string]time.Duration{"forward": 48 * time.Hour, "back": -48 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			long, p := start(t, testContext(t), WithRootfs(dirOf(t)), WithCommand("/bin/sleep", "1000"), WithTimeout(time.Hour))
			short := newContainer(t, WithCommand("/bin/sleep", "1000"), WithTimeout(3*time.Second))
			if _, err := short.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			setClock(t, jump)
			r, err := short.Wait(testContext(t))
			if err != nil || r.Reason != ReasonTimeout {
				t.Errorf("%v, %v", r, err)
			}
			if took := time.Since(begin); r != nil && (r.Wall <= 0 || r.Wall > took+10*time.Second) {
				t.Errorf("wall time %v, after %v", r.Wall, took)
			}
			if s := long.State(); s != StateRunning {
				t.Errorf("the other one is %v", s)
			}
			again := result(t, WithCommand("/bin/true"))
			if again.ExitCode != 0 || again.Wall > time.Hour {
				t.Errorf("afterwards: %v, %v", again, again.Wall)
			}
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
			if _, err := p.Wait(testContext(t)); err != nil && !errors.As(err, new(*ExitError)) {
				t.Error(err)
			}
		})
	}
}
