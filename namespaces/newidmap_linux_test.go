package namespaces

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What else holds the program's standard error open, such as processes that other goroutines are making, does not count.
func TestNewIDMapStandardError(t *testing.T) {
	for _, c := range []struct {
		name, script, said string
		code               int
	}{
		{"silent", "exit 0", "", 0},
		{"held open", "sleep 4 & exit 0", "", 0},
		{"held open and failed", "sleep 4 & echo 'no range' >&2; exit 3", `"no range"`, 3},
		{"failed", "echo \"$@\" >&2; exit 1", `"12 0 1000 1 1 100000 65536"`, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "newuidmap")
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			err := runNewIDMap(context.Background(), path, 12, []IDMap{{0, 1000, 1}, {1, 100000, 65536}})
			var exit *exec.ExitError
			switch {
			case c.code == 0 && err != nil:
				t.Error(err)
			case c.code != 0 && (!errors.As(err, &exit) || exit.ExitCode() != c.code || !strings.Contains(err.Error(), c.said)):
				t.Errorf("%v", err)
			}
		})
	}
}
