//go:build linux

package examples_test

import (
	"regexp"
	"strconv"
	"testing"
)

// maxMonitor is what a monitor may have in memory, in KiB.
const maxMonitor = 8 << 10

func TestMonitor(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		noContainers(t, c, "lesson-monitor")
		r := c.run(t, "monitor")
		r.want(t, 0, `^got hello$`, `^it was started again: another process true, restarts 1$`, `^got again$`, `^it is stopped, and stays so; its log:$`,
			`^\tstdout: started\n\tstdout: got hello\n\tstdout: got crash\n\tstdout: started\n\tstdout: got again\n\tstdout: got crash$`)
		m := regexp.MustCompile(`its monitor process [1-9]\d*, with (\d+) KiB in memory`).FindStringSubmatch(r.stdout)
		if m == nil {
			t.Fatal(r)
		}
		if kb, err := strconv.Atoi(m[1]); err != nil || kb > maxMonitor || kb == 0 {
			t.Errorf("the monitor has %d KiB in memory, at most %d are allowed", kb, maxMonitor)
		}
	})
}
