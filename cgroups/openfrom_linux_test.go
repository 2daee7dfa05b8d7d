package cgroups

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"testing"
)

// A group that a program elsewhere made is found by who knows in which groups that program was.
func TestOpenFrom(t *testing.T) {
	for name, c := range configs(t) {
		t.Run(name, func(t *testing.T) {
			around := newGroup(t, Resources{}, c)
			g, err := around.New(t.Context(), "caisson-made-elsewhere", Resources{}, Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := g.Delete(context.Background()); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
			m, err := Default()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Open("caisson-made-elsewhere"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("found without: %v", err)
			}
			own := map[string]string{}
			dirs := around.Paths()
			for _, h := range m.Layout().Hierarchies {
				if below, ok := strings.CutPrefix(dirs[h.Name], h.Mountpoint); ok {
					own[h.Name] = path.Join(h.Root, below)
				}
			}
			found, err := m.OpenFrom(own, "caisson-made-elsewhere")
			if err != nil {
				t.Fatal(err)
			}
			defer found.Close()
			if a, b := found.Paths(), g.Paths(); len(a) != len(b) {
				t.Errorf("%v instead of %v", a, b)
			}
		})
	}
}
