package caisson

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// resctrl reads the section "IntelRdt" of config-linux.md. The specification lets an l3CacheSchema begin with something else than "L3:"
// and have several lines, which is how code and data are told apart; for another resource there is schemata.
func (b *bundleReader) resctrl(l *specs.LinuxIntelRdt) {
	if l == nil {
		return
	}
	cfg := Resctrl{Class: l.ClosID, L3Cache: l.L3CacheSchema, MemoryBandwidth: l.MemBwSchema, Schemata: l.Schemata, Monitor: l.EnableMonitoring}
	faults := cfg.faults()
	for _, f := range faults {
		b.bad("linux.intelRdt."+f.field, "%v", f.err)
	}
	if len(faults) == 0 {
		b.add(WithResctrl(cfg))
	}
}

func specResctrl(r *Resctrl) *specs.LinuxIntelRdt {
	if r == nil {
		return nil
	}
	return &specs.LinuxIntelRdt{ClosID: r.Class, L3CacheSchema: r.L3Cache, MemBwSchema: r.MemoryBandwidth, Schemata: slices.Clone(r.Schemata), EnableMonitoring: r.Monitor}
}
