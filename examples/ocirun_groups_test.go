//go:build linux

package examples_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// podmanGroup is the group that podman makes for its containers, and leaves.
const podmanGroup = "libpod_parent"

// groupsStay removes at the test's end the groups that an engine leaves in the cgroup hierarchies below a directory, unless they were there before.
// Controllers that it enabled stay enabled: others may have come to need them since.
func groupsStay(t *testing.T, dir string) {
	t.Helper()
	before := podmanGroups(dir)
	t.Cleanup(func() {
		var left []string
		for end := time.Now().Add(testutil.Time(time.Minute)); ; time.Sleep(20 * time.Millisecond) { // what podman leaves behind may be about to end
			left = nil
			for _, g := range podmanGroups(dir) {
				if slices.Contains(before, g) {
					continue
				}
				_ = os.Remove(filepath.Join(g, "conmon"))
				if err := os.Remove(g); err != nil && !errors.Is(err, os.ErrNotExist) {
					left = append(left, g)
				}
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(end) {
				t.Logf("another podman uses %q now", left)
				return
			}
		}
	})
}

func podmanGroups(dir string) []string {
	own, _ := filepath.Glob(filepath.Join(dir, podmanGroup))
	each, _ := filepath.Glob(filepath.Join(dir, "*", podmanGroup))
	return append(own, each...)
}

func TestGroupsStay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "unified/cgroup.subtree_control")
	made := func(names ...string) {
		t.Helper()
		for _, n := range names {
			if err := os.MkdirAll(filepath.Join(dir, n, podmanGroup, "conmon"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	made("pids", "unified")
	if err := os.RemoveAll(filepath.Join(dir, "unified", podmanGroup)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("engine", func(t *testing.T) {
		groupsStay(t, dir)
		made("unified", "memory", "pids", ".")
		if err := os.WriteFile(file, []byte("pids hugetlb\n"), 0o644); err != nil { // by whomever
			t.Fatal(err)
		}
	})
	if got := podmanGroups(dir); !slices.Equal(got, []string{filepath.Join(dir, "pids", podmanGroup)}) {
		t.Errorf("there is %q", got)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "pids hugetlb\n" {
		t.Errorf("controllers were changed: %q, %v", b, err)
	}
}
