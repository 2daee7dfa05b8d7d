package cgroups

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What is missing of a parent is made, with what processes need to enter groups below it, in each hierarchy.
func TestMakeParent(t *testing.T) {
	top := name(t) + "-parent"
	g := newGroup(t, Resources{Pids: PidsResources{Max: 10}}, Config{Parent: "/" + top + "/inner", MakeParent: true, Controllers: Pids, Optional: CPUSet | Memory})
	dirs := g.Paths()
	t.Cleanup(func() { // before the group goes, so it must be removed here
		destroy(t, g)
		for _, dir := range dirs {
			for d := filepath.Dir(dir); filepath.Base(d) != filepath.Base(filepath.Dir(d)) && (filepath.Base(d) == "inner" || filepath.Base(d) == top); d = filepath.Dir(d) {
				if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		}
	})
	for _, dir := range dirs {
		if filepath.Base(filepath.Dir(dir)) != "inner" {
			t.Errorf("%s", dir)
		}
	}
	start(t, g, "wait")
	if n, err := g.Procs(); err != nil || len(n) != 1 {
		t.Errorf("%v, %v", n, err)
	}
}
