package cgroups

import "time"

// legacy translates what only v1 has. On v2 nothing has such a file, which is what the writer says then.
func (l *settings) legacy(r *Resources) {
	l.limit(Memory, "memory.swappiness", r.Memory.Swappiness, "")
	switch r.Memory.OOMKill { // the file says what is disabled
	case On:
		l.add(Memory, "memory.oom_control", "0")
	case Off:
		l.add(Memory, "memory.oom_control", "1")
	}
	if d := r.CPU.RealtimePeriod; d != 0 { // before the time in it, which cannot be longer
		l.add(CPU, "cpu.rt_period_us", micros(d, ""))
	}
	if d := r.CPU.RealtimeRuntime; d != 0 {
		l.add(CPU, "cpu.rt_runtime_us", micros(d, "-1"))
	}
}

func (f *faults) swappiness(n int64) {
	if n != Zero && (n < 0 || n > 100) {
		f.add("Memory.Swappiness", n, "is not within 0 to 100")
	}
}

func (f *faults) realtime(c *CPUResources) {
	if d := c.RealtimePeriod; d != 0 && d < time.Microsecond {
		f.add("CPU.RealtimePeriod", d, "is less than 1µs")
	}
	if d := c.RealtimeRuntime; d != Max && d != Zero && d != 0 && d < time.Microsecond {
		f.add("CPU.RealtimeRuntime", d, "is less than 1µs")
	}
	if c.RealtimePeriod > 0 && c.RealtimeRuntime > c.RealtimePeriod {
		f.add("CPU.RealtimeRuntime", c.RealtimeRuntime, "is more than the period")
	}
}
