package caisson

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Run holds the mount namespace only until the command has ended, however long that takes and whoever ends it.
func TestMountsGo(t *testing.T) {
	noLeaks(t)
	for name, script := range map[string]string{"at once": ":", "later": "sleep 0.05", "killed": "kill -9 $$; sleep 9", "in the background": "sleep 9 & exit 0"} {
		c := newContainer(t, sh(script))
		err := c.Run(testContext(t))
		var exit *ExitError
		if err != nil && !(name == "killed" && errors.As(err, &exit)) {
			t.Errorf("%s: %v", name, err)
		}
		if r := c.run; r.mountsGone != nil {
			select {
			case <-r.mountsGone:
			default:
				t.Errorf("%s: the mounts are still there", name)
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A Run that is given up lets go as well.
func TestMountsGoWithClose(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, sh("sleep 60"))
	done := make(chan error, 1)
	go func() { done <- c.Run(testContext(t)) }()
	for c.State() != StateRunning {
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var exit *ExitError
	if err := <-done; !errors.As(err, &exit) || exit.Result.Signal != unix.SIGKILL {
		t.Errorf("got %v", err)
	}
}
