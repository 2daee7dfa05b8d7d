package cgroups

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestLate(t *testing.T) {
	ctx := context.Background()
	needRoot(t)
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	name := name(t)
	want, err := m.New(ctx, name, Resources{Pids: PidsResources{Max: 7}}, Config{Optional: Memory | CPUAcct})
	if err != nil {
		t.Fatal(err)
	}
	paths := want.Paths()
	if err := want.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	g, err := m.New(ctx, name, Resources{Pids: PidsResources{Max: 7}}, Config{Optional: Memory | CPUAcct, Late: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Delete(ctx) })
	missing := g.Missing()
	if len(missing)+len(g.Paths()) != len(paths) {
		t.Errorf("missing %v, have %v, want %v", missing, g.Paths(), paths)
	}
	for _, h := range missing {
		if _, err := os.Stat(paths[h]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there already: %v", paths[h], err)
		}
	}
	for range 2 {
		if err := g.Complete(ctx); err != nil {
			t.Fatal(err)
		}
		if len(g.Missing()) != 0 || len(g.Paths()) != len(paths) {
			t.Errorf("missing %v, have %v, want %v", g.Missing(), g.Paths(), paths)
		}
	}
	found := false
	for _, dir := range g.Paths() {
		if b, err := os.ReadFile(filepath.Join(dir, "pids.max")); err == nil {
			found = true
			if string(b) != "7\n" {
				t.Errorf("pids.max is %q", b)
			}
		}
	}
	if !found {
		t.Error("no pids.max")
	}
	if err := g.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Complete(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("after Delete: %v", err)
	}
}

// What cannot be made leaves nothing, and the group can be deleted; so can one that was never completed.
func TestLateFails(t *testing.T) {
	ctx := context.Background()
	needRoot(t)
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	name := name(t)
	g, err := m.New(ctx, name, Resources{}, Config{Optional: Memory | Pids | CPUAcct, Late: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete(ctx)
	if len(g.Missing()) == 0 {
		t.Skip("no v1 here")
	}
	last := g.late.places[len(g.late.places)-1]
	dir := filepath.Join(last.parent.path, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err = g.Complete(ctx)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range m.layout.Hierarchies {
		if d := m.layout.Hierarchies[i].Dir(); d != "" {
			if _, err := os.Stat(filepath.Join(d, name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s/%s is left: %v", d, name, err)
			}
		}
	}
}
