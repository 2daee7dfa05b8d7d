//go:build linux

package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A device by its CDI name, from a description in YAML; its hook is run where the caller names the program.
func TestRunDevice(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		hook, note := filepath.Join(c.dir, "hook"), filepath.Join(c.dir, "note")
		for name, text := range map[string]string{
			hook: "#!/bin/sh\ncat > " + note + "\n",
			filepath.Join(c.dir, "vendor.yaml"): `---
cdiVersion: "0.6.0"
kind: vendor.com/sink
containerEdits:
  env: [SINK=yes]
devices:
- name: full
  containerEdits:
    deviceNodes:
    - {path: /dev/sink, hostPath: /dev/full}
- name: hooked
  containerEdits:
    hooks:
    - {hookName: createRuntime, path: ` + hook + `}
`,
		} {
			if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		shared(t, c)
		r := c.run(t, "run", "-q", "-cdi", c.dir, "-device", "vendor.com/sink=full", "--", "sh", "-c", `echo "SINK=$SINK"; echo x > /dev/sink || echo full`)
		r.want(t, 0, `^SINK=yes$`, `^full$`)
		r = c.run(t, "run", "-q", "-cdi", c.dir, "-device", "vendor.com/sink=hooked", "true")
		if r.code != 125 || !strings.Contains(r.stderr, hook) {
			t.Errorf("a hook that was not named: %v", r)
		}
		c.run(t, "run", "-q", "-id", "sink", "-cdi", c.dir, "-cdi-hook", hook, "-device", "vendor.com/sink=hooked", "true").want(t, 0)
		if b, err := os.ReadFile(note); err != nil || !strings.Contains(string(b), `"id":"sink"`) {
			t.Errorf("the hook saw %q (%v)", b, err)
		}
	})
}
