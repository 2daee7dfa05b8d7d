package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
)

// payloadMany is a program of processMany processes that wait.
const (
	payloadMany = "/bin/many"
	processMany = 16
)

// alive is a container that runs, and what can be done with it. Each call returns when the engine says that it is done.
type alive struct {
	pid                 int // of the first process
	pause, resume, kill func() error
	remove              func() error
}

// lives measures what is done with a running container: from the call until all its processes are frozen, until they go
// on, and from the kill until none is left. Each round has a new container.
func lives(w *workspace) error {
	engines, err := w.lifeEngines()
	if err != nil {
		return err
	}
	acts := []string{"freeze", "thaw", "kill"}
	took := map[string]map[string][]float64{}
	for i := range *rounds + 2 {
		rand.Shuffle(len(engines), func(i, j int) { engines[i], engines[j] = engines[j], engines[i] })
		for _, e := range engines {
			times, err := oneLife(e.start)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			if took[e.name] == nil {
				took[e.name] = map[string][]float64{}
			}
			for k, act := range acts {
				if i >= 2 { // the first ones warm up
					took[e.name][act] = append(took[e.name][act], times[k])
				}
			}
		}
	}
	return w.lifeReport(acts, took)
}

func (w *workspace) lifeReport(acts []string, took map[string]map[string][]float64) error {
	var text strings.Builder
	data := map[string]map[string]summary{}
	fmt.Fprintf(&text, "Microseconds for a container of %d processes, median / p90 (median ÷ caisson's):\n\n| engine | until frozen | until it goes on | from kill until empty |\n|---|---|---|---|\n", processMany)
	for _, name := range []string{"caisson", "crun", "runc"} {
		if took[name] == nil {
			continue
		}
		data[name] = map[string]summary{}
		fmt.Fprintf(&text, "| %s |", name)
		for _, act := range acts {
			s := summarize(took[name][act])
			data[name][act] = s
			fmt.Fprintf(&text, " %.0f / %.0f (%.2f) |", s.Median, s.P90, s.Median/data["caisson"][act].Median)
		}
		fmt.Fprintln(&text)
	}
	fmt.Print(text.String())
	return w.keep("life", text.String(), data)
}

type lifeEngine struct {
	name  string
	start func() (*alive, error)
}

func (w *workspace) lifeEngines() ([]lifeEngine, error) {
	list := []lifeEngine{{"caisson", w.liveInProcess}}
	for _, name := range []string{"crun", "runc"} {
		program := tool(strings.ToUpper(name), name)
		if program == "" {
			continue
		}
		if name == "crun" {
			if err := w.freeHugetlb(); err != nil { // it would refuse to start
				fmt.Fprintln(os.Stderr, "bench: without crun:", err)
				continue
			}
		}
		dir := filepath.Join(w.dir, "bundles", name+"-life")
		if err := w.writeBundle(dir, bundleKey{name, payloadMany, true}); err != nil {
			return nil, err
		}
		list = append(list, lifeEngine{name, func() (*alive, error) { return w.liveProgram(name, program, dir) }})
	}
	return list, nil
}

func (w *workspace) liveInProcess() (*alive, error) {
	ctx := context.Background()
	c, err := caisson.New(w.options(payloadMany, true)...)
	if err != nil {
		return nil, err
	}
	p, err := c.Start(ctx)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &alive{pid: p.Pid(), pause: func() error { return c.Pause(ctx) }, resume: func() error { return c.Resume(ctx) }, kill: p.Kill, remove: c.Close}, nil
}

// liveProgram is a container of an OCI runtime. Its commands are run by the floor's process, which starts programs faster
// than a Go program does.
func (w *workspace) liveProgram(name, program, bundle string) (*alive, error) {
	id, pidFile := "caisson-bench-life-"+name, filepath.Join(w.dir, name+".pid")
	args := []string{program, "--root", filepath.Join(w.dir, "oci-life-"+name)}
	do := func(more ...string) error {
		_, err := w.floor.total("X\t" + strings.Join(append(args[:3:3], more...), "\t"))
		return err
	}
	remove := func() error { return do("delete", "-f", id) }
	// What the container has as its streams must not be a pipe that is waited for.
	if err := exec.Command(program, append(args[1:3:3], "run", "-d", "--pid-file", pidFile, "-b", bundle, id)...).Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s run: %w", name, err), remove())
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return &alive{pid: pid, pause: func() error { return do("pause", id) }, resume: func() error { return do("resume", id) },
		kill: func() error { return do("kill", id, "KILL") }, remove: remove}, nil
}

// oneLife measures one container.
func oneLife(start func() (*alive, error)) (times [3]float64, err error) {
	a, err := start()
	if err != nil {
		return times, err
	}
	defer func() { err = errors.Join(err, a.remove()) }()
	pidfd, err := unix.PidfdOpen(a.pid, 0)
	if err != nil {
		return times, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	if err := a.awaitAll(); err != nil {
		return times, err
	}
	awaitCalm(*quiet)
	for i, do := range []func() error{a.pause, a.resume, func() error {
		// The first process of a pid namespace ends after all others.
		return errors.Join(a.kill(), awaitEnd(pidfd))
	}} {
		began := time.Now()
		if err := do(); err != nil {
			return times, err
		}
		times[i] = microseconds(time.Since(began))
	}
	return times, nil
}

// awaitAll waits until all processes are there.
func (a *alive) awaitAll() error {
	name := fmt.Sprintf("/proc/%d/task/%d/children", a.pid, a.pid)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if len(strings.Fields(string(text))) == processMany-1 {
			return nil
		}
	}
	return errors.New("the container's processes do not appear")
}

// awaitEnd waits for the end of a process.
func awaitEnd(pidfd int) error {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 10_000)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("the container does not end")
		}
		return err
	}
}
