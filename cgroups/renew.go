package cgroups

import "errors"

// ErrUsed is the answer of [Group.Renew] about a group in which what ran before would be noticed.
var ErrUsed = errors.New("control group keeps traces of what ran in it")

// renewable are the controllers of a group that can be renewed. The others keep what no counter tells: how much of its share a group
// has used up of the period that runs, what waits to be written, what was reserved.
const renewable = CPUAcct | CPUSet | Memory | Pids | Freezer | Devices

// keptCharge is how much memory may still be charged to a group that is renewed: what the kernel charges ahead on each CPU, and what it
// frees a little later.
const keptCharge = 1 << 20
