package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/rootfs"
)

// workspace is a temporary directory with a root filesystem, and the programs built for it.
type workspace struct {
	dir     string // temporary
	bin     string // built by make -C bench tools
	results string
	root    string // root filesystem with /bin/t0, /bin/pause, /bin/probe and busybox as /bin/true
	oneshot string
	filter  string // the compiled seccomp filter
	floor   *floorProcess
	undo    []func() error
}

// Payloads, as paths in the root filesystem.
const (
	payloadT0      = "/bin/t0"
	payloadBusybox = "/bin/true"
	payloadPause   = "/bin/pause"
	payloadProbe   = "/bin/probe"
)

func newWorkspace(results string) (w *workspace, err error) {
	results, err = filepath.Abs(results)
	if err != nil {
		return nil, err
	}
	w = &workspace{bin: filepath.Join(results, "bin"), results: results}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	w.oneshot = filepath.Join(w.bin, "oneshot")
	if *build {
		if err := w.build(); err != nil {
			return w, err
		}
	}
	if w.dir, err = os.MkdirTemp("", "caisson-bench-"); err != nil {
		return w, err
	}
	w.undo = append(w.undo, func() error { return os.RemoveAll(w.dir) })
	if err := w.fillRoot(); err != nil {
		return w, err
	}
	if err := w.dumpFilter(); err != nil {
		return w, err
	}
	w.floor, err = w.startFloor()
	return w, err
}

func (w *workspace) close() error {
	var errs []error
	for i := len(w.undo) - 1; i >= 0; i-- {
		errs = append(errs, w.undo[i]())
	}
	w.undo = nil
	return errors.Join(errs...)
}

// build makes the C programs and the one-shot program, if they are older than their sources.
func (w *workspace) build() error {
	src, err := sourceDir()
	if err != nil {
		return err
	}
	if err := command("make", "-s", "-C", src, "tools", "OUT="+w.results); err != nil {
		return err
	}
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", w.oneshot, "./oneshot")
	c.Dir, c.Env = src, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the one-shot program: %w\n%s", err, out)
	}
	return nil
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// sourceDir finds bench/ from the module's root or from within.
func sourceDir() (string, error) {
	for _, dir := range []string{"bench", "."} {
		if _, err := os.Stat(filepath.Join(dir, "floor", "floor.h")); err == nil {
			return filepath.Abs(dir)
		}
	}
	return "", errors.New("run this in the root of the module")
}

func (w *workspace) fillRoot() error {
	w.root = filepath.Join(w.dir, "root")
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(w.root, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w (install busybox-static)", err)
	}
	for name, from := range map[string]string{"busybox": busybox, "t0": w.bin + "/t0", "pause": w.bin + "/pause", "probe": w.bin + "/probe", "many": w.bin + "/many"} {
		if err := copyFile(filepath.Join(w.root, "bin", name), from); err != nil {
			return err
		}
	}
	if err := os.Symlink("busybox", filepath.Join(w.root, payloadBusybox)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.root, "etc", "passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// dumpFilter writes the compiled seccomp filter that caisson uses by default.
func (w *workspace) dumpFilter() error {
	arch, err := seccomp.Native()
	if err != nil {
		return err
	}
	p, err := seccomp.DefaultProgram(arch, caps.Default)
	if err != nil {
		return err
	}
	w.filter = filepath.Join(w.dir, "filter")
	return os.WriteFile(w.filter, p.Bytes(), 0o600)
}

// options are those of a default container.
func (w *workspace) options(program string, cgroup bool) []caisson.Option {
	opts := []caisson.Option{caisson.WithRootfs(rootfs.Dir(w.root)), caisson.WithCommand(program)}
	if !cgroup {
		opts = append(opts, caisson.WithoutCgroup())
	}
	return opts
}
