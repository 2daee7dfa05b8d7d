//go:build linux

package examples_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// podmanGroup is the group that podman makes for its containers, and leaves.
const podmanGroup = "libpod_parent"

// groupsStay removes at the test's end what an engine leaves in the cgroup hierarchies below a directory, unless it was there before: its group, and
// controllers that were enabled for it.
func groupsStay(t *testing.T, dir string) {
	t.Helper()
	before, enabled := podmanGroups(dir), enabledIn(dir)
	t.Cleanup(func() {
		var left []string
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // what podman leaves behind may be about to end
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
				break
			}
			if time.Now().After(end) {
				t.Logf("another podman uses %q now", left)
				return
			}
		}
		for file, now := range enabledIn(dir) {
			for _, c := range now {
				if !slices.Contains(enabled[file], c) {
					_ = os.WriteFile(file, []byte("-"+c), 0) // refused if it is enabled further down, where others need it
				}
			}
		}
	})
}

func podmanGroups(dir string) []string {
	own, _ := filepath.Glob(filepath.Join(dir, podmanGroup))
	each, _ := filepath.Glob(filepath.Join(dir, "*", podmanGroup))
	return append(own, each...)
}

// enabledIn are the controllers that are enabled below the roots of v2 hierarchies.
func enabledIn(dir string) map[string][]string {
	enabled := map[string][]string{}
	for _, root := range []string{dir, filepath.Join(dir, "unified")} {
		file := filepath.Join(root, "cgroup.subtree_control")
		if b, err := os.ReadFile(file); err == nil {
			enabled[file] = strings.Fields(string(b))
		}
	}
	return enabled
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
	enabled := func(list string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(list+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	made("pids", "unified")
	if err := os.RemoveAll(filepath.Join(dir, "unified", podmanGroup)); err != nil {
		t.Fatal(err)
	}
	enabled("pids")
	t.Run("engine", func(t *testing.T) {
		groupsStay(t, dir)
		made("unified", "memory", "pids", ".")
		enabled("pids hugetlb")
	})
	if got := podmanGroups(dir); !slices.Equal(got, []string{filepath.Join(dir, "pids", podmanGroup)}) {
		t.Errorf("there is %q", got)
	}
	if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(b), "-hugetlb") {
		t.Errorf("written: %q, %v", b, err)
	}
}
