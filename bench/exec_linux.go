package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caisson-go/caisson"
)

// execs measures a further process in a container that runs: from the call until its end is known.
func execs(w *workspace) error {
	engines, err := w.execEngines()
	if err != nil {
		return err
	}
	tight := []column{{Payload: payloadT0, Cgroup: true}, {Payload: payloadBusybox, Cgroup: true}}
	gaps := []column{{Payload: payloadT0, Cgroup: true, Gap: true}, {Payload: payloadBusybox, Cgroup: true, Gap: true}}
	newSampler().interleave(2, engines, tight)
	s := newSampler()
	s.interleave(*rounds, engines, tight)
	s.interleave(*gapRounds, engines, gaps)
	r := s.report("exec", engines, append(tight, gaps...))
	var text strings.Builder
	fmt.Fprintf(&text, "Linux %s, %d CPUs, %s; %d samples, %d of them while something else ran.\n", r.Kernel, r.CPUs, r.Go, r.Taken, r.Busy)
	fmt.Fprintf(&text, "Microseconds of one process in a running container: median / p90 / p99 (median ÷ caisson's).\n\n")
	r.table(&text, func(x cell) string {
		return fmt.Sprintf("%.0f / %.0f / %.0f (%.2f)", x.Median, x.P90, x.P99, x.ToCaisson)
	})
	fmt.Fprintf(&text, "\nOf %s; crun exec should be ≥ 8 times, runc exec ≥ 25 times as long. The fastest of all samples:\n\n", tight[0])
	r.table(&text, func(x cell) string { return fmt.Sprintf("%.0f", x.Min) })
	fmt.Print(text.String())
	return w.keep("exec", text.String(), r)
}

// execEngines starts one waiting container by each engine.
func (w *workspace) execEngines() ([]*engine, error) {
	own, err := w.execInProcess()
	if err != nil {
		return nil, err
	}
	list := []*engine{own}
	crun := tool("CRUN", "crun")
	if crun != "" {
		if err := w.freeHugetlb(); err != nil { // it would refuse to start
			fmt.Fprintln(os.Stderr, "bench: without crun:", err)
			crun = ""
		}
	}
	if crun != "" {
		e, err := w.execProgram("crun", crun)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	if runc := tool("RUNC", "runc"); runc != "" {
		e, err := w.execProgram("runc", runc)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

func (w *workspace) execInProcess() (*engine, error) {
	c, err := caisson.New(w.options(payloadPause, true)...)
	if err != nil {
		return nil, err
	}
	w.undo = append(w.undo, c.Close)
	if _, err := c.Start(context.Background()); err != nil {
		return nil, err
	}
	return &engine{name: "caisson", about: "Exec and Wait in this process", can: onlyWith,
		run: func(payload string, _ bool) (float64, error) {
			began := time.Now()
			p, err := c.Exec(context.Background(), caisson.WithCommand(payload))
			if err != nil {
				return 0, err
			}
			r, err := p.Wait(context.Background())
			took := time.Since(began)
			if err == nil && !r.Success() {
				err = fmt.Errorf("%s: %v", payload, r)
			}
			return microseconds(took), err
		},
	}, nil
}

// execProgram is the exec command of an OCI runtime.
func (w *workspace) execProgram(name, program string) (*engine, error) {
	dir, id := filepath.Join(w.dir, "bundles", name+"-exec"), "caisson-bench-exec-"+name
	if err := w.writeBundle(dir, bundleKey{name, payloadPause, true}); err != nil {
		return nil, err
	}
	state := []string{"--root", filepath.Join(w.dir, "oci-exec-"+name)}
	command := func(args ...string) error {
		out, err := exec.Command(program, append(state, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, args[0], err, out)
		}
		return nil
	}
	// What the container has as its streams must not be a pipe that is waited for.
	start := exec.Command(program, append(state, "run", "-d", "-b", dir, id)...)
	if err := start.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s run: %w", name, err), command("delete", "-f", id))
	}
	w.undo = append(w.undo, func() error { return command("delete", "-f", id) })
	e := w.program(name, version(program)+", exec", onlyWith, func(payload string, _ bool) []string {
		return append(append([]string{program}, state...), "exec", id, payload)
	})
	return e, nil
}
