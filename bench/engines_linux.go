package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/caisson-go/caisson"
)

// engine is a way to run a program in a container.
type engine struct {
	name  string
	about string
	// run makes a container from nothing to nothing and returns the microseconds it took. Nil: it cannot.
	run func(payload string, cgroup bool) (float64, error)
	// can says whether it can do with, or without, a cgroup.
	can func(cgroup bool) bool
	// output runs the probe and returns what it prints.
	output func() (string, error)
}

func always(bool) bool             { return true }
func onlyWithout(cgroup bool) bool { return !cgroup }
func onlyWith(cgroup bool) bool    { return cgroup }

// engines returns those that this machine has, caisson and the floors first.
func (w *workspace) engines() ([]*engine, error) {
	list := []*engine{w.inProcess(), w.kept(), w.poolEngine().engine(), w.program("caisson (program)", "the same in a program of its own", always, w.oneshotArgs), w.floorEngine("A"), w.floorEngine("B")}
	more, err := w.peers()
	list = append(list, more...)
	if *only == "" || err != nil {
		return list, err
	}
	var chosen []*engine
	for _, name := range strings.Split(*only, ",") {
		for _, e := range list {
			if e.name == name {
				chosen = append(chosen, e)
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("none of the engines %q is known", *only)
	}
	return chosen, nil
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// inProcess makes, runs and closes a new Container.
func (w *workspace) inProcess() *engine {
	return &engine{name: "caisson", about: "New, Run and Close in this process, all defaults", can: always,
		run: func(payload string, cgroup bool) (float64, error) {
			began := time.Now()
			c, err := caisson.New(w.options(payload, cgroup)...)
			if err == nil {
				err = errors.Join(c.Run(context.Background()), c.Close())
			}
			return microseconds(time.Since(began)), err
		},
		output: func() (string, error) {
			c, err := caisson.New(w.options(payloadProbe, true)...)
			if err != nil {
				return "", err
			}
			defer c.Close()
			out, err := c.Output(context.Background())
			return string(out), err
		},
	}
}

// kept starts the same Container again and again.
func (w *workspace) kept() *engine {
	type key struct {
		payload string
		cgroup  bool
	}
	kept := map[key]*caisson.Container{}
	w.undo = append(w.undo, func() error {
		var errs []error
		for _, c := range kept {
			errs = append(errs, c.Close())
		}
		return errors.Join(errs...)
	})
	return &engine{name: "caisson (kept)", about: "Run of a Container that has run before", can: always,
		run: func(payload string, cgroup bool) (float64, error) {
			k := key{payload, cgroup}
			if kept[k] == nil {
				c, err := caisson.New(w.options(payload, cgroup)...)
				if err != nil {
					return 0, err
				}
				kept[k] = c
			}
			began := time.Now()
			err := kept[k].Run(context.Background())
			return microseconds(time.Since(began)), err
		},
	}
}

func word(cgroup bool) string {
	if cgroup {
		return "cg"
	}
	return "nocg"
}

// floorEngine is one of the two lists of system calls in C.
func (w *workspace) floorEngine(which string) *engine {
	about := "C, the straightforward list of system calls"
	if which == "B" {
		about = "C, the best list known"
	}
	return &engine{name: "floor " + which, about: about, can: always,
		run: func(payload string, cgroup bool) (float64, error) {
			return w.floor.total(which + " " + word(cgroup) + " " + payload)
		},
		output: func() (string, error) {
			return w.floor.text(strings.ToLower(which)+" cg "+payloadProbe, true)
		},
	}
}

// program is an engine that is a program; args gives its command line.
func (w *workspace) program(name, about string, can func(bool) bool, args func(payload string, cgroup bool) []string) *engine {
	line := func(payload string, cgroup bool) string { return strings.Join(args(payload, cgroup), "\t") }
	return &engine{name: name, about: about, can: can,
		run: func(payload string, cgroup bool) (float64, error) {
			return w.floor.total("X\t" + line(payload, cgroup))
		},
		output: func() (string, error) { return w.floor.text("x\t"+line(payloadProbe, can(true)), true) },
	}
}

func (w *workspace) oneshotArgs(payload string, cgroup bool) []string {
	if !cgroup {
		return []string{w.oneshot, "-nocgroup", w.root, payload}
	}
	return []string{w.oneshot, w.root, payload}
}

// peers are the other engines that are installed.
func (w *workspace) peers() (list []*engine, err error) {
	bundles, err := w.writeBundles()
	if err != nil {
		return nil, err
	}
	state := w.dir + "/oci-state"
	if crun := tool("CRUN", "crun"); crun != "" {
		if err := w.freeHugetlb(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: crun may refuse to start:", err)
		}
		list = append(list, w.program("crun", version(crun), always, func(payload string, cgroup bool) []string {
			args := []string{crun, "--root", state + "-crun"}
			if !cgroup {
				args = append(args, "--cgroup-manager=disabled")
			}
			return append(args, "run", "-b", bundles[bundleKey{"crun", payload, cgroup}], "caisson-bench-crun")
		}))
	}
	if runc := tool("RUNC", "runc"); runc != "" {
		list = append(list, w.program("runc", version(runc), onlyWith, func(payload string, cgroup bool) []string {
			return []string{runc, "--root", state + "-runc", "run", "-b", bundles[bundleKey{"runc", payload, cgroup}], "caisson-bench-runc"}
		}))
	}
	if bwrap := tool("BWRAP", "bwrap"); bwrap != "" {
		list = append(list, w.program("bubblewrap", version(bwrap), onlyWithout, func(payload string, _ bool) []string {
			return w.bwrapArgs(bwrap, payload)
		}))
	}
	if unshare := tool("UNSHARE", "unshare"); unshare != "" {
		list = append(list, w.program("unshare", version(unshare)+"; namespaces and proc only", onlyWithout, func(payload string, _ bool) []string {
			return []string{unshare, "-m", "-p", "-i", "-n", "-u", "-C", "--fork", "--root=" + w.root, "--mount-proc=/proc", payload}
		}))
	}
	return list, nil
}

// tool finds a program: the environment variable names it, else PATH has it.
func tool(env, name string) string {
	if path := os.Getenv(env); path != "" {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
			if _, err := os.Stat(dir + name); err == nil {
				return dir + name
			}
		}
		return ""
	}
	return path
}

func version(program string) string {
	out, _ := exec.Command(program, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// bwrapArgs asks bubblewrap for what it can do of the same: it has no cgroups, masks or hostname by default.
func (w *workspace) bwrapArgs(bwrap, payload string) []string {
	args := []string{bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
		"--hostname", "caisson", "--bind", w.root, "/", "--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue",
		"--ro-bind", "/sys", "/sys", "--new-session", "--as-pid-1", "--clearenv", "--seccomp", "100", "--cap-drop", "ALL"}
	for _, c := range capabilityNames() {
		args = append(args, "--cap-add", c)
	}
	return append(args, payload)
}
