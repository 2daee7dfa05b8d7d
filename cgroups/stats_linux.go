package cgroups

import (
	"time"

	"golang.org/x/sys/unix"
)

// Final reads what counts when all is over, from as few files as possible (four, with CPU, memory and pids): CPU time,
// peak memory and processes, OOM kills, I/O; on v2 also hits of the memory limit and throttling. Everything else is
// not available.
func (g *Group) Final() (Stats, error) { return g.stats(g.Controllers(), final) }

// Summary reads what a running group is judged by: what [Group.Final] does, and current memory, its working set and
// processes, hits of the memory limit, throttling. Who asks again and again takes a [Group.Meter]. What the group has no controller for is not available.
func (g *Group) Summary() (Stats, error) { return g.stats(g.Controllers(), summary) }

// Stats reads all counters of all controllers of the group.
func (g *Group) Stats() (Stats, error) { return g.stats(g.Controllers(), full) }

// StatsOf reads all counters of the controllers given. What the group has no controller for is not available.
func (g *Group) StatsOf(c Controllers) (Stats, error) { return g.stats(c, full) }

// OOMKills is how many processes an OOM killer has ended, as [MemoryStats] counts them, read from one file. It is not available without
// the memory controller.
func (g *Group) OOMKills() (n Value[uint64], err error) {
	if !g.hold() {
		return n, ErrClosed
	}
	defer g.release()
	b := newBuffer()
	defer b.free()
	for i := range g.nodes {
		if r := (reader{n: &g.nodes[i], b: b}); r.n.bits.Has(Memory) {
			file := "memory.events"
			if r.n.h.Version == 1 {
				file = "memory.oom_control"
			}
			return flatValue(r.text(file), "oom_kill"), r.err
		}
	}
	return n, nil
}

// A detail says how much is read.
type detail uint8

const (
	final detail = iota
	summary
	full
)

func (g *Group) stats(c Controllers, d detail) (s Stats, err error) {
	if !g.hold() {
		return s, ErrClosed
	}
	defer g.release()
	b := newBuffer()
	defer b.free()
	r := reader{b: b, detail: d, s: &s}
	r.nodes(g.nodes, c)
	s.since(g.before)
	return s, r.err
}

// nodes reads all directories of a group. The v1 directories come last: where both count CPU time, cpuacct is read only for want of v2.
func (r *reader) nodes(nodes []node, c Controllers) {
	for i := range nodes {
		n := &nodes[i]
		r.n = n
		if n.h.Version == 2 {
			r.readV2(c & n.bits)
		} else {
			r.readV1(c & n.bits)
		}
	}
}

// A reader fills Stats from the files of one directory after the other. A file that is not there leaves its values
// not available; any other failure is kept.
type reader struct {
	n      *node
	b      *buffer
	detail detail
	s      *Stats
	err    error
}

func (r *reader) text(file string) []byte {
	text, err := r.b.readAt(r.n.fd, file)
	switch err {
	case nil:
		return text
	case unix.ENOENT, unix.EOPNOTSUPP:
	default:
		if r.err == nil {
			r.err = r.n.fail("read", file, err)
		}
	}
	return nil
}

func (r *reader) single(file string) Value[uint64] { return single(r.text(file)) }

func (r *reader) readV2(c Controllers) {
	s := r.s
	if c&(CPU|CPUAcct) != 0 {
		r.cpuStat()
	}
	if c.Has(Memory) {
		if r.detail > final {
			s.Memory.Current = r.single("memory.current")
		}
		s.Memory.Peak = r.peak()
		flatKeyed(r.text("memory.events"), func(k []byte, v uint64) {
			switch string(k) {
			case "max":
				s.Memory.LimitHits = ValueOf(v)
			case "oom_kill":
				s.Memory.OOMKills = ValueOf(v)
			}
		})
		if r.detail > final {
			r.memoryStat(&memoryNamesV2)
		}
		if r.detail == full {
			r.memoryMore()
		}
	}
	r.pids(c)
	if c.Has(IO) {
		if text := r.text("io.stat"); text != nil {
			s.IO = ioTotals(text)
			if r.detail == full {
				s.IO.Devices = ioDevices(text)
			}
		}
	}
	r.others(c, ".current")
	if r.detail == full {
		r.pressure(c)
		r.refusals(c)
	}
}

// peak reads the peak of memory: that since Renew, if the group was renewed.
func (r *reader) peak() Value[uint64] {
	if r.n.peakFD < 0 {
		return r.single("memory.peak")
	}
	text, err := r.b.preadAll(r.n.peakFD)
	if err != nil && r.err == nil {
		r.err = r.n.fail("read", "memory.peak", err)
	}
	return single(text)
}

// cpuStat reads cpu.stat of v2, which every group has, with more lines where the cpu controller is on.
func (r *reader) cpuStat() {
	c := &r.s.CPU
	flatKeyed(r.text("cpu.stat"), func(k []byte, v uint64) {
		n := ValueOf(v)
		switch string(k) {
		case "usage_usec":
			c.Usage = duration(n, time.Microsecond)
		case "user_usec":
			c.User = duration(n, time.Microsecond)
		case "system_usec":
			c.System = duration(n, time.Microsecond)
		case "nr_periods":
			c.Periods = n
		case "nr_throttled":
			c.Throttled = n
		case "throttled_usec":
			c.Waited = duration(n, time.Microsecond)
		case "nr_bursts":
			c.Bursts = n
		case "burst_usec":
			c.BurstTime = duration(n, time.Microsecond)
		}
	})
}

func (r *reader) pids(c Controllers) {
	if !c.Has(Pids) {
		return
	}
	if r.detail > final {
		r.s.Pids.Current = r.single("pids.current")
	}
	r.s.Pids.Peak = r.single("pids.peak")
	if r.detail == full {
		r.s.Pids.Refused = flatValue(r.text("pids.events"), "max")
		r.s.Pids.Max = limit(r.text("pids.max"))
	}
}

func (r *reader) readV1(c Controllers) {
	s := r.s
	if c.Has(CPUAcct) && !s.CPU.Usage.ok {
		s.CPU.Usage = duration(r.single("cpuacct.usage"), 1)
		s.CPU.User = duration(r.single("cpuacct.usage_user"), 1)
		s.CPU.System = duration(r.single("cpuacct.usage_sys"), 1)
	}
	if c.Has(CPU) && r.detail > final {
		flatKeyed(r.text("cpu.stat"), func(k []byte, v uint64) {
			switch string(k) {
			case "nr_periods":
				s.CPU.Periods = ValueOf(v)
			case "nr_throttled":
				s.CPU.Throttled = ValueOf(v)
			case "throttled_time":
				s.CPU.Waited = duration(ValueOf(v), 1)
			case "nr_bursts":
				s.CPU.Bursts = ValueOf(v)
			case "burst_time":
				s.CPU.BurstTime = duration(ValueOf(v), 1)
			}
		})
	}
	if c.Has(Memory) {
		r.memoryV1()
	}
	r.pids(c)
	if c.Has(IO) {
		s.IO.ReadBytes, s.IO.WriteBytes = r.blkio("blkio.throttle.io_service_bytes_recursive")
		if r.detail > final {
			s.IO.ReadOps, s.IO.WriteOps = r.blkio("blkio.throttle.io_serviced_recursive")
		}
		if r.detail == full {
			s.IO.Devices = blkioDevices(nil, r.text("blkio.throttle.io_service_bytes_recursive"), false)
			s.IO.Devices = blkioDevices(s.IO.Devices, r.text("blkio.throttle.io_serviced_recursive"), true)
		}
	}
	r.others(c, ".usage_in_bytes")
}

func (r *reader) memoryV1() {
	m := &r.s.Memory
	m.Peak = r.single("memory.max_usage_in_bytes")
	if m.OOMKills = flatValue(r.text("memory.oom_control"), "oom_kill"); r.detail == final {
		return
	}
	m.Current = r.single("memory.usage_in_bytes")
	m.LimitHits = r.single("memory.failcnt")
	m.LimitHits.n += r.single("memory.memsw.failcnt").n
	if m.LimitHits.n == 0 && m.OOMKills.n > 0 {
		m.LimitHits = Value[uint64]{} // recent kernels do not count where memory and swap together are limited
	}
	r.memoryStat(&memoryNamesV1)
	if r.detail == full {
		m.SwapPeak = r.single("memory.memsw.max_usage_in_bytes")
		m.Max, m.SwapMax = limit(r.text("memory.limit_in_bytes")), limit(r.text("memory.memsw.limit_in_bytes"))
	}
}

func (r *reader) blkio(file string) (read, write Value[uint64]) {
	if text := r.text(file); text != nil {
		return blkioTotals(text)
	}
	return read, write
}

// others reads huge pages and misc, whose files or lines depend on the machine.
func (r *reader) others(c Controllers, suffix string) {
	if r.detail < full {
		return
	}
	if c.Has(HugeTLB) {
		r.s.HugeTLB = map[string]Value[uint64]{}
		for _, size := range pageSizes() {
			r.s.HugeTLB[size] = r.single("hugetlb." + size + suffix)
		}
	}
	if c.Has(Misc) {
		r.s.Misc = map[string]Value[uint64]{}
		flatKeyed(r.text("misc.current"), func(k []byte, v uint64) { r.s.Misc[string(k)] = ValueOf(v) })
	}
	if c.Has(RDMA) {
		r.rdma()
	}
}
