package cgroups

import (
	"math/bits"
	"strings"
)

// Controllers is a set of controllers, under the names of cgroup v2. The zero value is the empty set.
type Controllers uint16

const (
	CPU     Controllers = 1 << iota // share and bandwidth of CPU time
	CPUAcct                         // CPU time used; every v2 group counts it, v1 has a controller for it
	CPUSet                          // which CPUs and memory nodes
	Memory                          // memory and swap
	Pids                            // number of processes and threads
	IO                              // block devices; named blkio in v1
	HugeTLB                         // huge pages
	Misc                            // countable resources of other kinds, such as encrypted-VM address spaces
	Freezer                         // stop and go; every v2 group can, v1 has a controller for it
	Devices                         // which device nodes may be made and opened; v2 does it by eBPF, v1 has a controller for it

	RDMA // remote DMA devices

	numControllers = iota
	all            = 1<<numControllers - 1
)

// core is what a v2 group does without a controller; Devices only where programs can be attached, as
// [Hierarchy.Controllers] tells.
const core = CPUAcct | Freezer | Devices

// always is what every v2 group does.
const always = CPUAcct | Freezer

var namesV2 = [numControllers]string{"cpu", "cpuacct", "cpuset", "memory", "pids", "io", "hugetlb", "misc", "freezer", "devices", "rdma"}

// Has says whether every controller of d is in c.
func (c Controllers) Has(d Controllers) bool { return c&d == d }

// String returns the names, separated by commas, in a fixed order; "" for the empty set.
func (c Controllers) String() string {
	if one := c & all; one == c && bits.OnesCount16(uint16(c)) == 1 {
		return namesV2[bits.TrailingZeros16(uint16(c))]
	}
	var b strings.Builder
	for i, n := range namesV2 {
		if c&(1<<i) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(n)
	}
	return b.String()
}

// MarshalText writes the set as [Controllers.String] does.
func (c Controllers) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// each calls f for every single controller of the set.
func (c Controllers) each(f func(Controllers)) {
	for i := range numControllers {
		if one := Controllers(1 << i); c&one != 0 {
			f(one)
		}
	}
}

// controllerNamed knows the names of v1 and v2; 0 for others.
func controllerNamed(name string) Controllers {
	if name == "blkio" {
		return IO
	}
	for i, n := range namesV2 {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// controllersOf reads a list such as "cpuset cpu io" or "cpu,cpuacct".
func controllersOf(list string) (c Controllers) {
	for f := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' }) {
		c |= controllerNamed(f)
	}
	return c
}
