package cgroups

import "bytes"

// memoryNames are what lines of memory.stat are called in one version.
type memoryNames struct {
	anon, file, kernel, inactive, active, shmem, slab, sock, tables, faults, majors, swap string
}

var (
	memoryNamesV2 = memoryNames{"anon", "file", "kernel", "inactive_file", "active_file", "shmem", "slab", "sock", "pagetables",
		"pgfault", "pgmajfault", "-"}
	memoryNamesV1 = memoryNames{"total_rss", "total_cache", "-", "total_inactive_file", "total_active_file", "total_shmem", "-",
		"-", "-", "total_pgfault", "total_pgmajfault", "total_swap"}
)

// memoryStat picks lines of memory.stat by the names they have in this version; for a summary the working set alone.
func (r *reader) memoryStat(names *memoryNames) {
	m := &r.s.Memory
	text := r.text("memory.stat")
	if r.detail < full {
		m.InactiveFile = pickValue(text, names.inactive)
		return
	}
	flatKeyed(text, func(k []byte, v uint64) {
		n := ValueOf(v)
		switch string(k) {
		case names.anon:
			m.Anon = n
		case names.file:
			m.File = n
		case names.kernel:
			m.Kernel = n
		case names.inactive:
			m.InactiveFile = n
		case names.active:
			m.ActiveFile = n
		case names.shmem:
			m.Shmem = n
		case names.slab:
			m.Slab = n
		case names.sock:
			m.Sock = n
		case names.tables:
			m.PageTables = n
		case names.faults:
			m.Faults = n
		case names.majors:
			m.MajorFaults = n
		case names.swap:
			m.Swap = n
		}
	})
}

// memoryMore reads what v2 has in files of their own.
func (r *reader) memoryMore() {
	m := &r.s.Memory
	m.Swap = r.single("memory.swap.current")
	if r.n.peakFD < 0 { // else it is, in part, of what ran before the group was renewed
		m.SwapPeak = r.single("memory.swap.peak")
	}
	m.ZSwap = r.single("memory.zswap.current")
	m.Events = parseMemoryEvents(r.text("memory.events"))
	m.LocalEvents = parseMemoryEvents(r.text("memory.events.local"))
	m.Max, m.SwapMax = limit(r.text("memory.max")), limit(r.text("memory.swap.max"))
}

// pressure reads the pressure files, which every v2 group has, of what was asked about.
func (r *reader) pressure(c Controllers) {
	p := &r.s.Pressure
	if c&(CPU|CPUAcct) != 0 {
		p.CPU = parsePressure(r.text("cpu.pressure"))
		p.IRQ = parsePressure(r.text("irq.pressure"))
	}
	// Beside v1 groups the v2 one has no controllers, and still their pressure.
	beside := r.n.h.Controllers&(Memory|IO) == 0
	if c.Has(Memory) || beside {
		p.Memory = parsePressure(r.text("memory.pressure"))
	}
	if c.Has(IO) || beside {
		p.IO = parsePressure(r.text("io.pressure"))
	}
}

// refusals reads how often limits of countable things were met.
func (r *reader) refusals(c Controllers) {
	if c.Has(HugeTLB) {
		r.s.HugeTLBRefused = map[string]Value[uint64]{}
		for _, size := range pageSizes() {
			r.s.HugeTLBRefused[size] = flatValue(r.text("hugetlb."+size+".events"), "max")
		}
	}
	if c.Has(Misc) {
		r.s.MiscRefused = map[string]Value[uint64]{}
		flatKeyed(r.text("misc.events"), func(k []byte, v uint64) {
			if name, ok := bytes.CutSuffix(k, []byte(".max")); ok {
				r.s.MiscRefused[string(name)] = ValueOf(v)
			}
		})
	}
}

// rdma reads one line for each device.
func (r *reader) rdma() {
	r.s.RDMA = map[string]string{}
	for line := range bytes.Lines(r.text("rdma.current")) {
		if name, rest, ok := bytes.Cut(bytes.TrimSpace(line), space); ok {
			r.s.RDMA[string(name)] = string(rest)
		}
	}
}
