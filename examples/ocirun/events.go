package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
)

// event is a line of events, in the form that callers of runc read.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// figures are what runc calls stats.
type figures struct {
	CPU     cpuFigures            `json:"cpu"`
	Memory  memoryFigures         `json:"memory"`
	Pids    pidsFigures           `json:"pids"`
	Blkio   blkioFigures          `json:"blkio"`
	Hugetlb map[string]tlbFigures `json:"hugetlb"`
}

type cpuFigures struct {
	Usage struct {
		Total  uint64 `json:"total,omitempty"`
		Kernel uint64 `json:"kernel"`
		User   uint64 `json:"user"`
	} `json:"usage,omitempty"`
	Throttling struct {
		Periods       uint64 `json:"periods,omitempty"`
		Throttled     uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling,omitempty"`
}

type memoryFigures struct {
	Cache uint64            `json:"cache,omitempty"`
	Usage memoryEntry       `json:"usage,omitempty"`
	Swap  memoryEntry       `json:"swap,omitempty"`
	Raw   map[string]uint64 `json:"raw,omitempty"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type pidsFigures struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type tlbFigures struct {
	Usage   uint64 `json:"usage,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type blkioFigures struct {
	Bytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Ops   []blkioEntry `json:"ioServicedRecursive,omitempty"`
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

func events(ctx context.Context, g *global, args []string) error {
	f := newFlags("events", "CONTAINER", 1, 1)
	once := f.toggle("stats", "")
	interval := f.Duration("interval", 5*time.Second, "")
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	if *interval <= 0 {
		return fmt.Errorf("duration interval must be greater than 0")
	}
	c, err := g.load(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if c.State() == caisson.StateStopped {
		return fmt.Errorf("container with id %s is not running", args[0])
	}
	out := json.NewEncoder(os.Stdout)
	if *once {
		return printStats(ctx, out, c)
	}
	return watch(ctx, out, c, *interval)
}

func printStats(ctx context.Context, out *json.Encoder, c *caisson.Container) error {
	s, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	return out.Encode(event{"stats", c.ID(), statsOf(s)})
}

// watch prints figures at intervals and OOM kills when they happen, until the container ends.
func watch(ctx context.Context, out *json.Encoder, c *caisson.Container, interval time.Duration) error {
	told := make(chan caisson.Event)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(told)
		for e, err := range c.Events(ctx) {
			if err != nil {
				return
			}
			select {
			case told <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := printStats(ctx, out, c); err != nil && c.State() != caisson.StateStopped {
				return err
			}
		case e, ok := <-told:
			if ok && e.Kind == caisson.EventOOM {
				if err := out.Encode(event{Type: "oom", ID: c.ID()}); err != nil {
					return err
				}
			}
			if !ok || e.Kind == caisson.EventExited {
				return nil
			}
		}
	}
}

// statsOf translates the figures of a group.
func statsOf(s *cgroups.Stats) (f figures) {
	n := func(d cgroups.Value[time.Duration]) uint64 { return uint64(d.Or(0)) }
	f.CPU.Usage.Total, f.CPU.Usage.Kernel, f.CPU.Usage.User = n(s.CPU.Usage), n(s.CPU.System), n(s.CPU.User)
	f.CPU.Throttling.Periods, f.CPU.Throttling.Throttled, f.CPU.Throttling.ThrottledTime = s.CPU.Periods.Or(0), s.CPU.Throttled.Or(0), n(s.CPU.Waited)
	m := &s.Memory
	f.Memory.Cache = m.File.Or(0)
	f.Memory.Usage = memoryEntry{Limit: m.Max.Or(0), Usage: m.Current.Or(0), Max: m.Peak.Or(0), Failcnt: m.LimitHits.Or(0)}
	f.Memory.Swap = memoryEntry{Limit: m.SwapMax.Or(0), Usage: m.Swap.Or(0), Max: m.SwapPeak.Or(0)}
	f.Memory.Raw = map[string]uint64{"anon": m.Anon.Or(0), "file": m.File.Or(0), "inactive_file": m.InactiveFile.Or(0), "active_file": m.ActiveFile.Or(0),
		"pgfault": m.Faults.Or(0), "pgmajfault": m.MajorFaults.Or(0), "oom_kill": m.OOMKills.Or(0)}
	f.Pids.Current = s.Pids.Current.Or(0)
	if most := s.Pids.Max.Or(0); most != math.MaxUint64 {
		f.Pids.Limit = most
	}
	f.Hugetlb = map[string]tlbFigures{}
	for size, used := range s.HugeTLB {
		f.Hugetlb[size] = tlbFigures{Usage: used.Or(0), Failcnt: s.HugeTLBRefused[size].Or(0)}
	}
	for _, d := range s.IO.Devices {
		at := blkioEntry{Major: uint64(d.Major), Minor: uint64(d.Minor)}
		add := func(to *[]blkioEntry, op string, v cgroups.Value[uint64]) {
			e := at
			e.Op, e.Value = op, v.Or(0)
			*to = append(*to, e)
		}
		add(&f.Blkio.Bytes, "Read", d.ReadBytes)
		add(&f.Blkio.Bytes, "Write", d.WriteBytes)
		add(&f.Blkio.Ops, "Read", d.ReadOps)
		add(&f.Blkio.Ops, "Write", d.WriteOps)
	}
	return f
}
