//go:build linux

package examples_test

import (
	"strings"
	"testing"
)

// TestEvents: everybody sees start and end; who has a cgroup sees all that is in between.
func TestEvents(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := c.run(t, "events")
		r.want(t, 0, `^sleep: started$`, `^sleep: exited: stopped$`)
		needLimits(t, c)
		r.want(t, 0, `^sleep: paused\nsleep: updated\nsleep: resumed\nsleep: exited`, `^tail: oom: \d killed so far\n\tthe limit is 32 MiB$`, `^tail: exited: out of memory$`)
		if c.root() && !strings.Contains(r.stdout, `("tail") was ended`) {
			t.Logf("the kernel's log does not name the victim: %v", r)
		}
	})
}
