//go:build linux

// Command containerdstats reads the statistics of groups through github.com/containerd/cgroups: the peer of
// "bench stats". It is a module of its own, so that the library is a dependency of nothing else.
//
// Arguments: how often, and the groups, as paths from the root of each hierarchy. It prints the CPU time, in
// nanoseconds, that one reading of all took.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "containerdstats:", err)
		os.Exit(1)
	}
}

func run(times string, groups []string) error {
	n, err := strconv.Atoi(times)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no count", times)
	}
	var stat []func() error
	for _, g := range groups {
		f, err := load(g)
		if err != nil {
			return err
		}
		stat = append(stat, f)
	}
	for range n {
		before := cpu()
		for _, f := range stat {
			if err := f(); err != nil {
				return err
			}
		}
		fmt.Println(int64(cpu() - before))
	}
	return nil
}

func load(group string) (func() error, error) {
	if cgroups.Mode() == cgroups.Unified {
		g, err := cgroup2.Load(group)
		if err != nil {
			return nil, err
		}
		return func() error { _, err := g.Stat(); return err }, nil
	}
	g, err := cgroup1.Load(cgroup1.StaticPath(group))
	if err != nil {
		return nil, err
	}
	return func() error { _, err := g.Stat(cgroup1.IgnoreNotExist); return err }, nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
