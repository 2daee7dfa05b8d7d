//go:build linux

// Command cgroups shows what control groups do, with the package cgroups alone: a memory limit and the OOM kill that
// follows, shares of CPU time in numbers, freezing, pressure, and rules about devices.
//
//	go run ./examples/cgroups [memory|cpu|freeze|pressure|devices]...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/caisson-go/caisson/cgroups"
)

type lesson struct {
	name string
	run  func(ctx context.Context) error
}

var lessons = []lesson{{"memory", memory}, {"cpu", cpu}, {"freeze", freeze}, {"pressure", pressure}, {"devices", devices}}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wanted := map[string]bool{}
	for _, a := range os.Args[1:] {
		if !slices.ContainsFunc(lessons, func(l lesson) bool { return l.name == a }) {
			fmt.Fprintf(os.Stderr, "there is no lesson %q: memory, cpu, freeze, pressure, devices\n", a)
			cancel()
			os.Exit(2)
		}
		wanted[a] = true
	}
	for _, l := range lessons {
		if len(wanted) > 0 && !wanted[l.name] {
			continue
		}
		switch err := l.run(ctx); {
		case errors.Is(err, cgroups.ErrNotSupported):
			fmt.Printf("%-9s not here: %v\n", l.name, err)
		case err != nil:
			fmt.Fprintf(os.Stderr, "%s: %v\n", l.name, err)
			cancel()
			os.Exit(1)
		}
	}
}

// with makes a group, calls f, and removes group and processes.
func with(ctx context.Context, r cgroups.Resources, want cgroups.Controllers, f func(g *cgroups.Group) error) (err error) {
	name := fmt.Sprintf("caisson-lesson-%d-%d", os.Getpid(), time.Now().UnixNano())
	g, err := cgroups.New(ctx, name, r, cgroups.Config{Controllers: want})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Kill(ctx), g.Delete(ctx)) }()
	return f(g)
}

// start runs a shell that waits until it is in the group.
func start(ctx context.Context, g *cgroups.Group, script string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", "read go; "+script)
	cmd.Stdout = os.Stdout
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := g.AddProc(ctx, cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return nil, errors.Join(err, cmd.Wait())
	}
	_, err = in.Write([]byte("\n"))
	return cmd, err
}

const spin = "while :; do :; done"

// memory: tail keeps what it has read of an endless line, until the kernel ends it.
func memory(ctx context.Context) error {
	limit := cgroups.MemoryResources{Max: 32 << 20, Swap: cgroups.Zero}
	return with(ctx, cgroups.Resources{Memory: limit}, 0, func(g *cgroups.Group) error {
		cmd, err := start(ctx, g, "exec tail /dev/zero")
		if err != nil {
			return err
		}
		fmt.Println("memory    a process under a limit of 32 MiB ended:", cmd.Wait())
		s, err := g.Stats()
		if err != nil {
			return err
		}
		fmt.Printf("memory    the group counts %v OOM kill, and at most %d MiB at once\n", s.Memory.OOMKills, s.Memory.Peak.Or(0)>>20)
		return nil
	})
}

// cpu: two groups on one CPU, one with three times the weight.
func cpu(ctx context.Context) error {
	low := cgroups.Resources{CPU: cgroups.CPUResources{Weight: 100}, CPUSet: cgroups.CPUSetResources{CPUs: "0"}}
	high := low
	high.CPU.Weight = 300
	return with(ctx, low, cgroups.CPUAcct, func(a *cgroups.Group) error {
		return with(ctx, high, cgroups.CPUAcct, func(b *cgroups.Group) error {
			var used [2]time.Duration
			for _, g := range []*cgroups.Group{a, b} {
				cmd, err := start(ctx, g, spin)
				if err != nil {
					return err
				}
				defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			}
			time.Sleep(2 * time.Second)
			for i, g := range []*cgroups.Group{a, b} {
				s, err := g.Summary()
				if err != nil {
					return err
				}
				used[i] = s.CPU.Usage.Or(0)
			}
			fmt.Printf("cpu       on one CPU, weight 100 got %v and weight 300 got %v: %.1f times as much\n",
				used[0].Round(time.Millisecond), used[1].Round(time.Millisecond), used[1].Seconds()/used[0].Seconds())
			return nil
		})
	})
}

// freeze: a process that uses all CPU time it can get uses none while it is frozen.
func freeze(ctx context.Context) error {
	return with(ctx, cgroups.Resources{}, cgroups.Freezer|cgroups.CPUAcct, func(g *cgroups.Group) error {
		cmd, err := start(ctx, g, spin)
		if err != nil {
			return err
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		usedIn := func(state string) error {
			before, err := g.StatsOf(cgroups.CPUAcct)
			used := false
			for range 200 { // on a busy machine it waits for its turn
				time.Sleep(300 * time.Millisecond)
				after, err2 := g.StatsOf(cgroups.CPUAcct)
				used = after.CPU.Usage.Or(0)-before.CPU.Usage.Or(0) > 10*time.Millisecond
				if err = errors.Join(err, err2); err != nil || used || state == "frozen" {
					break
				}
			}
			fmt.Printf("freeze    %-7s used CPU time: %v\n", state, used)
			return err
		}
		err = usedIn("running")
		began := time.Now()
		err = errors.Join(err, g.Freeze(ctx))
		fmt.Println("freeze    all processes stood still after", time.Since(began).Round(10*time.Microsecond))
		return errors.Join(err, usedIn("frozen"), g.Thaw(ctx), usedIn("thawed"))
	})
}

// pressure: processes that want more CPU time than their limit stand still, and the kernel tells.
func pressure(ctx context.Context) error {
	return with(ctx, cgroups.Resources{CPU: cgroups.CPUResources{CPUs: 0.1}}, cgroups.CPUAcct, func(g *cgroups.Group) error {
		cmd, err := start(ctx, g, spin)
		if err != nil {
			return err
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		trigger := cgroups.PressureTrigger{Resource: cgroups.CPUPressure, Stall: 500 * time.Millisecond, Window: 2 * time.Second}
		for e, err := range g.Watch(ctx, trigger) {
			if err != nil {
				return err
			}
			if e.Kind == cgroups.PressureReached {
				fmt.Println("pressure  told of:", e.Trigger)
				break
			}
		}
		s, err := g.Stats()
		fmt.Printf("pressure  in all it stood still for more than 100ms: %v\n", s.Pressure.CPU.Some.Total.Or(0) > 100*time.Millisecond)
		return err
	})
}

// devices: a rule that allows reading does not allow writing.
func devices(ctx context.Context) error {
	zero := cgroups.DeviceRule{Allow: true, Type: cgroups.CharDevice, Major: 1, Minor: 5, Access: cgroups.DeviceRead}
	null := cgroups.DeviceRule{Allow: true, Type: cgroups.CharDevice, Major: 1, Minor: 3, Access: cgroups.DeviceRead | cgroups.DeviceWrite}
	script := `for how in '<' '>' '<>'; do if sh -c "exec 3$how/dev/zero" 2>/dev/null; then r=opened; else r=refused; fi; echo "devices   /dev/zero $r with $how"; done`
	return with(ctx, cgroups.Resources{Devices: []cgroups.DeviceRule{zero, null}}, 0, func(g *cgroups.Group) error {
		fmt.Println("devices   rules:", zero, "and", null)
		cmd, err := start(ctx, g, script)
		if err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return err
		}
		zero.Access = cgroups.DeviceAny
		if err := g.Update(ctx, cgroups.Resources{Devices: []cgroups.DeviceRule{zero, null}}); err != nil {
			return err
		}
		fmt.Println("devices   now:", zero)
		if cmd, err = start(ctx, g, script); err != nil {
			return err
		}
		return cmd.Wait()
	})
}
