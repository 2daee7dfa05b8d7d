package cgroups_test

import (
	"context"
	"fmt"
	"log"
	"os/exec"
	"time"

	"github.com/caisson-go/caisson/cgroups"
)

// A command with half a CPU, 64 MiB of memory without swap, and at most 100 processes.
func Example() {
	g, err := cgroups.New(context.Background(), "job-1", cgroups.Resources{
		Memory: cgroups.MemoryResources{Max: 64 << 20, Swap: cgroups.Zero},
		CPU:    cgroups.CPUResources{CPUs: 0.5},
		Pids:   cgroups.PidsResources{Max: 100},
	}, cgroups.Config{Optional: cgroups.CPUAcct})

	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	defer g.Delete(ctx)

	cmd := exec.Command("make", "test")
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	if err := g.AddProc(context.Background(), cmd.Process.Pid); err != nil {
		log.Fatal(err)
	}
	_ = cmd.Wait()
	_ = g.Kill(ctx) // what the command left running

	s, err := g.Final()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("CPU time", s.CPU.Usage, "peak memory", s.Memory.Peak, "OOM kills", s.Memory.OOMKills)
}

// What a wish comes to in the kernel's files.
func ExampleResources_Settings() {
	r := cgroups.Resources{
		Memory: cgroups.MemoryResources{Max: 64 << 20, Swap: cgroups.Zero},
		CPU:    cgroups.CPUResources{CPUs: 0.5, Weight: 50},
	}
	for _, version := range []int{2, 1} {
		list, err := r.Settings(version)
		if err != nil {
			log.Fatal(err)
		}
		for _, s := range list {
			fmt.Println(s)
		}
	}
	// Output:
	// 67108864 > memory.max
	// 0 > memory.swap.max
	// 50000 100000 > cpu.max
	// 50 > cpu.weight
	// 67108864 > memory.limit_in_bytes
	// 67108864 > memory.memsw.limit_in_bytes
	// 100000 > cpu.cfs_period_us
	// 50000 > cpu.cfs_quota_us
	// 512 > cpu.shares
}
