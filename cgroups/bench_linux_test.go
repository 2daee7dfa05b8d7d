package cgroups

import (
	"context"
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
