//go:build linux

package stage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The keeper, or its successor, removes the directories that it was told of when the host has ended, but for one that is used.
func TestKeeperRemovesGroup(t *testing.T) {
	for _, successor := range []bool{false, true} {
		var dirs []string
		for _, name := range []string{"one", "used/file", "three"} {
			dir := filepath.Join(t.TempDir(), name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, dir)
		}
		dirs[1] = filepath.Dir(dirs[1])
		t.Setenv("STAGE_TEST_DIRS", strings.Join(dirs, " "))
		cmd, _, k, said := startHost(t)
		if successor {
			if unix.Kill(k, unix.SIGKILL); !said.Scan() || said.Text() != "successor" {
				t.Fatalf("it says %q", said.Text())
			}
		}
		there := func(dir string) bool { _, err := os.Stat(dir); return !errors.Is(err, fs.ErrNotExist) }
		if !there(dirs[0]) || !there(dirs[2]) {
			t.Fatal("one is gone before the host has ended")
		}
		cmd.Process.Kill()
		cmd.Wait()
		for end := time.Now().Add(time.Minute); there(dirs[0]) || there(dirs[2]); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("successor %v: still there: %v %v", successor, there(dirs[0]), there(dirs[2]))
			}
		}
		if !there(dirs[1]) {
			t.Error("one that is used was removed")
		}
	}
}

// What the keeper has no room for is refused.
func TestKeepGroupBounds(t *testing.T) {
	if err := KeepGroup(make([]string, keptDirs+1)); err == nil {
		t.Error("too many directories were taken")
	}
	if err := KeepGroup([]string{strings.Repeat("x", keptDir)}); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a path that is too long: %v", err)
	}
}
