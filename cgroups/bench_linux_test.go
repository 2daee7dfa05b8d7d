package cgroups

import (
	"context"
	"strconv"
	"testing"
)

// What a container's start and end pay for its group.

func BenchmarkNewDelete(b *testing.B) {
	for _, c := range []struct {
		name string
		Config
	}{{"plain", Config{}}, {"without-v2-side", Config{NoUnified: true}},
		{"v1-freezer-cpuacct", Config{NoUnified: true, Controllers: Freezer | CPUAcct}}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g := benchGroup(b, c.Config)
				if err := g.Delete(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkStats(b *testing.B) {
	g := benchGroup(b, Config{})
	defer g.Delete(b.Context())
	for name, read := range map[string]func() (Stats, error){"final": g.Final, "summary": g.Summary, "full": g.Stats} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchGroup(b *testing.B, c Config) *Group {
	r := Resources{Memory: MemoryResources{Max: 64 << 20}, CPU: CPUResources{CPUs: 0.5}, Pids: PidsResources{Max: 100}}
	g, err := New(context.Background(), prefix()+"-bench", r, c)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// BenchmarkThousand reads the figures of a thousand groups.
func BenchmarkThousand(b *testing.B) {
	var groups []*Group
	var meters []*Meter
	r := Resources{Memory: MemoryResources{Max: 64 << 20}, CPU: CPUResources{CPUs: 0.5}, Pids: PidsResources{Max: 100}}
	for i := range 1000 {
		g, err := New(b.Context(), prefix()+"-bench-"+strconv.Itoa(i), r, Config{Controllers: CPUAcct})
		if err != nil {
			b.Fatal(err)
		}
		defer g.Delete(context.Background())
		m, err := g.Meter()
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close()
		groups, meters = append(groups, g), append(meters, m)
	}
	b.Run("meter", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, m := range meters {
				if _, err := m.Read(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("full", func(b *testing.B) {
		for b.Loop() {
			for _, g := range groups {
				if _, err := g.Stats(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
