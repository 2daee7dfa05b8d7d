package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
)

func update(ctx context.Context, g *global, args []string) error {
	f := newFlags("update", "CONTAINER", 1, 1)
	file := f.str("resources", "r", "")
	r := &specs.LinuxResources{}
	fillers := limitFlags(f, r)
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	if *file != "" {
		if err := readResources(*file, r); err != nil {
			return err
		}
	} else {
		for _, fill := range fillers {
			if err := fill(); err != nil {
				return err
			}
		}
	}
	c, err := g.load(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := caisson.ResourcesFromSpec(r)
	if err != nil {
		return err
	}
	return c.Update(ctx, res)
}

// readResources reads linux.resources of the specification; "-" is standard input.
func readResources(path string, r *specs.LinuxResources) error {
	in := os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if err := json.NewDecoder(io.LimitReader(in, 1<<20)).Decode(r); err != nil {
		return fmt.Errorf("resources: %w", err)
	}
	return nil
}

// limitFlags defines the options for limits. What was given is filled in by what it returns.
func limitFlags(f *flags, r *specs.LinuxResources) (fillers []func() error) {
	number := func(name string, set func(int64)) {
		s := f.str(name, "", "")
		fillers = append(fillers, func() error {
			if *s == "" {
				return nil
			}
			n, err := parseAmount(*s)
			if err != nil {
				return fmt.Errorf("invalid value for %s: %w", name, err)
			}
			set(n)
			return nil
		})
	}
	cpu := func() *specs.LinuxCPU {
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		return r.CPU
	}
	memory := func() *specs.LinuxMemory {
		if r.Memory == nil {
			r.Memory = &specs.LinuxMemory{}
		}
		return r.Memory
	}
	u := func(n int64) *uint64 { v := uint64(n); return &v }
	number("blkio-weight", func(n int64) { v := uint16(n); r.BlockIO = &specs.LinuxBlockIO{Weight: &v} })
	number("cpu-period", func(n int64) { cpu().Period = u(n) })
	number("cpu-quota", func(n int64) { cpu().Quota = &n })
	number("cpu-burst", func(n int64) { cpu().Burst = u(n) })
	number("cpu-share", func(n int64) { cpu().Shares = u(n) })
	number("cpu-rt-period", func(n int64) { cpu().RealtimePeriod = u(n) })
	number("cpu-rt-runtime", func(n int64) { cpu().RealtimeRuntime = &n })
	number("cpu-idle", func(n int64) { cpu().Idle = &n })
	number("memory", func(n int64) { memory().Limit = &n })
	number("memory-reservation", func(n int64) { memory().Reservation = &n })
	number("memory-swap", func(n int64) { memory().Swap = &n })
	number("kernel-memory", func(n int64) {})     // Linux has given it up, and runc passes over it
	number("kernel-memory-tcp", func(n int64) {}) // likewise
	number("pids-limit", func(n int64) { r.Pids = &specs.LinuxPids{Limit: &n} })
	text := func(name string, set func(string)) {
		s := f.str(name, "", "")
		fillers = append(fillers, func() error {
			if *s != "" {
				set(*s)
			}
			return nil
		})
	}
	text("cpuset-cpus", func(s string) { cpu().Cpus = s })
	text("cpuset-mems", func(s string) { cpu().Mems = s })
	for _, name := range []string{"l3-cache-schema", "mem-bw-schema"} {
		s := f.str(name, "", "")
		fillers = append(fillers, func() error {
			if *s == "" {
				return nil
			}
			return fmt.Errorf("--%s: %w: a class of service stays as linux.intelRdt of config.json has it", name, caisson.ErrUnsupported)
		})
	}
	return fillers
}

// parseAmount reads a number; with k, m or g it is one of bytes.
func parseAmount(s string) (int64, error) {
	unit := int64(1)
	t := strings.TrimSuffix(strings.ToLower(s), "b")
	if n := len(t) - 1; n > 0 {
		if i := strings.IndexByte("kmgt", t[n]); i >= 0 {
			unit, t = 1<<(10*(i+1)), t[:n]
		}
	}
	v, err := strconv.ParseInt(t, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	if v > (1<<63-1)/unit || v < -1 {
		return 0, fmt.Errorf("%q is out of range", s)
	}
	return v * unit, nil
}
