//go:build linux

package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// noContainers removes what earlier runs may have left under an id.
func noContainers(t *testing.T, c caller, ids ...string) {
	t.Helper()
	for _, id := range ids {
		c.run(t, "run", "-rm", id)
		t.Cleanup(func() { c.run(t, "run", "-rm", id) })
	}
}

func TestDetach(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		noContainers(t, c, "lesson-detach")
		c.run(t, "detach").want(t, 0, `now I am killed$`, `has ended: signal: killed$`, `the container is running`, `ended with exit status 7 after [1-9]\S*s$`)
		if r := c.run(t, "run", "-list"); r.code != 0 || strings.Contains(r.stdout, "lesson-detach") {
			t.Errorf("it is still there: %v", r)
		}
	})
}

func TestRunDetached(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		noContainers(t, c, "test-web", "test-short")
		log := filepath.Join(c.dir, "log")
		c.run(t, "run", "-detach", "-id", "test-web", "-log", log, "sh", "-c", "echo begun; trap 'exit 3' TERM; while :; do sleep 0.1; done").want(t, 0, "^test-web$")
		c.run(t, "run", "-list").want(t, 0, "^test-web +running +[1-9]")
		if r := c.run(t, "run", "-d", "-id", "test-web", "true"); r.code != 125 || !strings.Contains(r.stderr, "exists already") {
			t.Errorf("the same id: %v", r)
		}
		c.run(t, "run", "-stop", "test-web").want(t, 0)
		c.run(t, "run", "-list").want(t, 0, "^test-web +stopped, ")
		c.run(t, "run", "-rm", "test-web").want(t, 0)
		if b, err := os.ReadFile(log); err != nil || string(b) != "begun\n" {
			t.Errorf("%q, %v", b, err)
		}
		c.run(t, "run", "-d", "-id", "test-short", "sh", "-c", "exit 9").want(t, 0)
		c.run(t, "run", "-wait", "test-short").want(t, 9)
		c.run(t, "run", "-rm", "test-short").want(t, 0)
		c.run(t, "run", "-rm", "test-short").wantErr(t, 125, "no such container")
		c.run(t, "run", "-d", "-t", "true").wantErr(t, 125, "interactive")
		c.run(t, "run", "-d", "-timeout", "1s", "true").wantErr(t, 125, "WithTimeout")
	})
}
