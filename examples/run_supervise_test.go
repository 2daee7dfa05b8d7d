//go:build linux

package examples_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRunRestart: a command that fails is started again by the program, or, when it is detached, by one that stays for it.
func TestRunRestart(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "run", "-q", "-restart", "on-failure:2", "sh", "-c", "echo try; exit 3").want(t, 3, `^try\ntry\ntry$`)
		log := filepath.Join(c.dir, "log")
		c.run(t, "run", "-q", "-restart", "on-failure:1", "-log", log, "-health", "test ! -e /etc/passwd", "-health-interval", "50ms", "sleep", "100").want(t, 137, `^$`)
		c.run(t, "run", "-q", "-restart", "sometimes", "true").wantErr(t, 125, "none of no, on-failure")
		c.run(t, "run", "-q", "-restart", "always:3", "true").wantErr(t, 125, "only on-failure takes a number")
		c.run(t, "run", "-q", "-health", "tcp:80", "true").wantErr(t, 125, "-health needs -restart")

		const id = "run-restart"
		defer func() { c.run(t, "run", "-rm", id) }()
		c.run(t, "run", "-d", "-id", id, "-restart", "on-failure:1", "-log", log, "sh", "-c", "echo run; exit 4").want(t, 0, "^"+id+"$")
		c.run(t, "run", "-wait", id).want(t, 4, `^$`)
		b, err := os.ReadFile(log)
		if n := strings.Count(string(b), " stdout F run\n"); err != nil || n != 2 {
			t.Errorf("%d runs are in the log: %q, %v", n, b, err)
		}
		if !regexp.MustCompile(`(?m)^20\d\d-\S+Z stdout F run$`).Match(b) {
			t.Errorf("no time in %q", b)
		}
	})
}
