//go:build linux

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// static builds an example that needs nothing of the image it runs in.
func static(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-o", path, "./"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// insideDocker: a program in a container of Docker's starts containers, where Docker allows it; where it does not, the error names
// the flag of docker run. The containers are runc's, but for those with every capability, which runc refuses on machines that lack one.
func insideDocker(t *testing.T, d *daemon) {
	hello := static(t, d.dir, "hello")
	run := "run --rm --network none -v " + hello + ":/usr/bin/hello:ro "
	const runc, works = "--runtime runc ", `^hello from process 1 on `
	rows := []row{
		{"privileged", run + "--privileged bb:1 hello", "", 0, works},
		{"no filter, nothing masked", run + runc + "--security-opt seccomp=unconfined --security-opt systempaths=unconfined --security-opt apparmor=unconfined bb:1 hello", "", 0, works},
		{"nothing masked", run + runc + "--security-opt systempaths=unconfined bb:1 hello", "", 1, `docker run --security-opt seccomp=unconfined`},
		{"no filter", run + runc + "--security-opt seccomp=unconfined bb:1 hello", "", 1, `docker run --security-opt systempaths=unconfined`},
		{"defaults", run + runc + "bb:1 hello", "", 1, `docker run --security-opt seccomp=unconfined`},
	}
	if _, err := exec.LookPath("runc"); err != nil {
		rows = rows[:1]
	}
	follow(t, rows, func(args []string) *exec.Cmd { return d.docker(args...) })
}
