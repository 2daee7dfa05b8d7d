//go:build linux

package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What callers of runc give is taken as there, or refused as there.
func TestOcirunAsCallersHaveIt(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, nil)
		r.oci(t, "run", "--detach", "web").want(t, 0)
		r.oci(t, "kill", "web", "0").want(t, 0) // is there a process?
		r.oci(t, "kill", "--all", "web", "0").want(t, 0)
		r.oci(t, "kill", "web", "65").wantErr(t, 1, `unknown signal "65"`)
		r.run(t, "ocirun", "--root", "state", "state", "web").want(t, 0, `"id": "web"`) // of the working directory
		r.run(t, "ocirun", "--root", r.state+"/../state/", "state", "web").want(t, 0, `"id": "web"`)
		r.oci(t, "delete", "--force", "none").want(t, 0)
		for _, id := range []string{"../x", "a:b", "a b", strings.Repeat("a", 200)} {
			r.oci(t, "delete", "--force", id).wantErr(t, 1, `not an id`)
			r.run(t, "ocirun", "--root", "none", "delete", "--force", id).wantErr(t, 1, `not an id`)
		}
		r.oci(t, "ps", "web", "--bogus").wantErr(t, 1, `ps: exit status 1: .*bogus|ps: exit status 1: .*option`)
		r.oci(t, "exec", "--cap", "CAP_BOGUS", "web", "true").wantErr(t, 0, `CAP_BOGUS`)
		r.oci(t, "update", "--l3-cache-schema", "L3:0=f", "web").wantErr(t, 1, `--l3-cache-schema: unsupported`)
		r.oci(t, "kill", "web", "").want(t, 0) // SIGTERM; the process is the first of its namespace, and ignores it
		r.oci(t, "kill", "web", "KILL").want(t, 0)
		awaitStatus(t, r, "web", specs.StateStopped)
		r.oci(t, "kill", "web", "0").wantErr(t, 1, `not running`)
	})
}

// A new container's state directory may be given relative to the working directory.
func TestOcirunRelativeRoot(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := newRuntime(t, c, func(s *specs.Spec) { s.Process.Args = []string{"echo", "here"} })
		r.run(t, "ocirun", "--root", "state/", "run", "--bundle", "bundle", "web").want(t, 0, `^here$`)
	})
}

// A hook that fails after the end is told, by whoever calls it, and all else goes on.
func TestOcirunPoststopFails(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		mark := filepath.Join(c.dir, "mark")
		r := newRuntime(t, c, func(s *specs.Spec) {
			s.Process.Args = []string{"true"}
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/false"}, {Path: "/bin/touch", Args: []string{"touch", mark}}}}
		})
		const told = `level=warning msg="poststop hook /bin/false: exit status 1"`
		for _, f := range []func() result{
			func() result { return r.oci(t, "run", "web") },
			func() result {
				r.oci(t, "run", "--detach", "web").want(t, 0)
				awaitStatus(t, r, "web", specs.StateStopped)
				return r.oci(t, "delete", "web")
			},
		} {
			f().wantErr(t, 0, told)
			if err := os.Remove(mark); err != nil {
				t.Error(err)
			}
		}
	})
}
