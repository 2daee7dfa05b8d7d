package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/caisson-go/caisson"
)

// images are the options that checkpoint and restore have in common. What a checkpoint took along its restore knows by itself.
type images struct {
	path, work, parent, groups *string
	empty                      *many
	toggles                    map[string]*bool
}

func (f *flags) images() *images {
	i := &images{path: f.str("image-path", "", ""), work: f.str("work-path", "", ""), parent: f.str("parent-path", "", ""),
		groups: f.str("manage-cgroups-mode", "", "soft"), empty: f.many("empty-ns", ""), toggles: map[string]*bool{}}
	for _, name := range []string{"tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup", "lazy-pages"} {
		i.toggles[name] = f.toggle(name, "")
	}
	return i
}

// check refuses what is not known, by name, and makes the paths absolute.
func (i *images) check() error {
	if !slices.Contains([]string{"soft", "ignore"}, *i.groups) {
		return fmt.Errorf("--manage-cgroups-mode %q: %w: the container's own cgroup is made as config.json says; soft and ignore are known", *i.groups, caisson.ErrUnsupported)
	}
	for _, ns := range *i.empty {
		if ns != "network" {
			return fmt.Errorf("--empty-ns %q: %w: network is known", ns, caisson.ErrUnsupported)
		}
	}
	for _, p := range []*string{i.path, i.work} {
		if p == i.path {
			*p = cmp.Or(*p, "checkpoint")
		}
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// checkpoint writes a container to disk, and removes it unless it goes on.
func checkpoint(ctx context.Context, g *global, args []string) error {
	f := newFlags("checkpoint", "CONTAINER", 1, 1)
	i := f.images()
	leave, pre := f.toggle("leave-running", ""), f.toggle("pre-dump", "")
	server, status := f.str("page-server", "", ""), f.Int("status-fd", -1, "")
	args, err := f.parse(args)
	if err == nil {
		err = i.check()
	}
	if err != nil {
		return err
	}
	c, err := g.load(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	for _, dir := range []string{filepath.Dir(*i.path), *i.work} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	parent := *i.parent
	if parent != "" && !filepath.IsAbs(parent) { // as CRIU has it
		parent = filepath.Join(*i.path, parent)
	}
	cfg := caisson.CheckpointConfig{Dir: *i.path, WorkDir: *i.work, Parent: parent, Program: g.criu, LeaveRunning: *leave, PreDump: *pre,
		TCPEstablished: *i.toggles["tcp-established"], ExternalSockets: *i.toggles["ext-unix-sk"], ShellJob: *i.toggles["shell-job"],
		FileLocks: *i.toggles["file-locks"], EmptyNetwork: len(*i.empty) > 0, IgnoreCgroups: *i.groups == "ignore",
		AutoDedup: *i.toggles["auto-dedup"], LazyPages: *i.toggles["lazy-pages"], PageServer: *server}
	if *status >= 0 {
		if !isInherited(*status) {
			return fmt.Errorf("--status-fd: %d is no open descriptor", *status)
		}
		cfg.Status = os.NewFile(uintptr(*status), "status-fd")
	}
	if err := c.Checkpoint(ctx, cfg); err != nil {
		return err
	}
	if *leave || *pre {
		return nil
	}
	defer g.forgetNotify(args[0])
	return c.Remove(ctx)
}

// restore makes a container of a bundle that goes on from a checkpoint.
func restore(ctx context.Context, g *global, args []string) error {
	f := newFlags("restore", "CONTAINER", 1, 1)
	w, i := f.wish(true), f.images()
	w.detach = f.toggle("detach", "d")
	profile, label := f.str("lsm-profile", "", ""), f.str("lsm-mount-context", "", "")
	args, err := f.parse(args)
	if err == nil {
		err = i.check()
	}
	if err != nil {
		return err
	}
	if *w.console != "" {
		return fmt.Errorf("--console-socket: %w: a terminal is not kept in a checkpoint", caisson.ErrUnsupported)
	}
	w.restore = &caisson.RestoreConfig{Dir: *i.path, WorkDir: *i.work, Program: g.criu,
		AutoDedup: *i.toggles["auto-dedup"], LazyPages: *i.toggles["lazy-pages"], LSMProfile: *profile, LSMMountContext: *label}
	return g.runs(ctx, w, args[0], false)
}
