package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caisson-go/caisson/cgroups"
)

// manyGroups is how many groups are read.
const manyGroups = 1000

// groupStats reads the figures of a thousand groups, each with a process in it, and tells what that costs in processor time:
// a Meter with its files kept open, Summary and Stats, and containerd/cgroups.
func groupStats(w *workspace) error {
	g, err := newHerd(manyGroups)
	if err != nil {
		return errors.Join(err, g.close())
	}
	n := max(*rounds/4, 5)
	text := "| processor time of reading " + strconv.Itoa(manyGroups) + " groups | ms, median | least |\n|---|---|---|\n"
	row := func(name string, times []time.Duration, err error) {
		if err != nil {
			text += "| " + name + " | " + err.Error() + " | |\n"
			return
		}
		slices.Sort(times)
		ms := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1000, 'f', 1, 64) }
		text += "| " + name + " | " + ms(times[len(times)/2]) + " | " + ms(times[0]) + " |\n"
	}
	for _, k := range []struct {
		name string
		read func(i int) error
	}{
		{"Meter (files kept open): CPU, memory with working set, processes, OOM kills", func(i int) error { _, err := g.meters[i].Read(); return err }},
		{"Group.Summary", func(i int) error { _, err := g.groups[i].Summary(); return err }},
		{"Group.Stats: everything", func(i int) error { _, err := g.groups[i].Stats(); return err }},
	} {
		times, err := g.time(n, k.read)
		row(k.name, times, err)
	}
	times, err := g.peer(w, n)
	row("containerd/cgroups Stat", times, err)
	fmt.Print(text)
	return errors.Join(g.close(), w.keep("stats", text, text))
}

// A herd is many groups.
type herd struct {
	groups []*cgroups.Group
	meters []*cgroups.Meter
	procs  []*exec.Cmd
}

func newHerd(n int) (*herd, error) {
	h := &herd{}
	r := cgroups.Resources{Memory: cgroups.MemoryResources{Max: 64 << 20}, CPU: cgroups.CPUResources{CPUs: 0.5}, Pids: cgroups.PidsResources{Max: 100}}
	for i := range n {
		name := fmt.Sprintf("caisson-bench-%d-%d", os.Getpid(), i)
		g, err := cgroups.New(context.Background(), name, r, cgroups.Config{Parent: "/", Controllers: cgroups.CPUAcct, Optional: cgroups.IO})
		if err != nil {
			return h, err
		}
		h.groups = append(h.groups, g)
		m, err := g.Meter()
		if err != nil {
			return h, err
		}
		h.meters = append(h.meters, m)
		p := exec.Command("sleep", "3600")
		if err := p.Start(); err != nil {
			return h, err
		}
		h.procs = append(h.procs, p)
		if err := g.AddProc(context.Background(), p.Process.Pid); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (h *herd) close() (err error) {
	for _, m := range h.meters {
		err = errors.Join(err, m.Close())
	}
	for _, p := range h.procs {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	for _, g := range h.groups {
		err = errors.Join(err, g.Delete(context.Background()))
	}
	return err
}

func (h *herd) time(n int, read func(i int) error) (list []time.Duration, err error) {
	for range n {
		before := ownTime()
		for i := range h.groups {
			if err := read(i); err != nil {
				return nil, err
			}
		}
		list = append(list, ownTime()-before)
	}
	return list, nil
}

// peer builds and runs the program for containerd/cgroups, which is a module of its own.
func (h *herd) peer(w *workspace, n int) (list []time.Duration, err error) {
	tool, err := filepath.Abs(filepath.Join(*results, "containerdstats"))
	if err != nil {
		return nil, err
	}
	if *build {
		cmd := exec.Command("go", "build", "-o", tool, ".")
		src, err := sourceDir()
		if err != nil {
			return nil, err
		}
		cmd.Dir = filepath.Join(src, "containerdstats")
		cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building it: %w: %s", err, strings.ReplaceAll(string(out), "\n", " "))
		}
	}
	args := []string{strconv.Itoa(n)}
	for _, g := range h.groups {
		args = append(args, "/"+g.Name())
	}
	out, err := exec.Command(tool, args...).Output()
	if err != nil {
		return nil, err
	}
	for _, f := range strings.Fields(string(out)) {
		ns, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil, err
		}
		list = append(list, time.Duration(ns))
	}
	if len(list) == 0 {
		return nil, errors.New("it printed nothing")
	}
	return list, nil
}

func ownTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
