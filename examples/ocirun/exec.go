package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
)

// changes are the options of exec that change the process of the configuration.
type changes struct {
	process, cwd, user, label, apparmor, cgroup *string
	env, gids, caps                             *many
	tty, noNewPrivs, ignorePaused               *bool
}

func execute(ctx context.Context, g *global, args []string) error {
	f := newFlags("exec", "CONTAINER COMMAND [ARGS]", 1, -1)
	f.plain = true
	w := f.wish(false)
	w.detach = f.toggle("detach", "d")
	ch := &changes{process: f.str("process", "p", ""), cwd: f.str("cwd", "", ""), user: f.str("user", "u", ""), label: f.str("process-label", "", ""),
		apparmor: f.str("apparmor", "", ""), cgroup: f.str("cgroup", "", ""), env: f.many("env", "e"), gids: f.many("additional-gids", "g"), caps: f.many("cap", "c"),
		tty: f.toggle("tty", "t"), noNewPrivs: f.toggle("no-new-privs", ""), ignorePaused: f.toggle("ignore-paused", "")}
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	signals := notified(*w.detach)
	c, err := g.load(ctx, args[0]) // not closed: the container lives on, and what this holds of it ends with the program
	if err != nil {
		return err
	}
	if err := ch.may(c); err != nil {
		return err
	}
	p, err := ch.spec(c, args)
	if err != nil {
		return err
	}
	g.warnOfCapabilities(p)
	return inContainer(ctx, c, w, p, signals)
}

// may refuses states and options that are impossible.
func (ch *changes) may(c *caisson.Container) error {
	state := c.State()
	switch {
	case *ch.cgroup != "":
		return errors.New("exec --cgroup: a process always enters the container's own cgroup")
	case state == caisson.StatePaused && *ch.ignorePaused:
		return errors.New("exec --ignore-paused: a process cannot be started in a cgroup that is frozen: resume the container first")
	case state == caisson.StatePaused:
		return errors.New("cannot exec in a paused container (use resume first)")
	case state != caisson.StateRunning:
		return errors.New("cannot exec in a stopped container: container not running")
	}
	return nil
}

// inContainer runs a process.
func inContainer(ctx context.Context, c *caisson.Container, w *wish, spec *specs.Process, s *signals) error {
	process, err := caisson.ProcessFromSpec(spec)
	if err != nil {
		return err
	}
	files, env, err := w.files()
	if err != nil {
		return err
	}
	streams, err := w.streams(spec.Terminal, *w.detach)
	if err != nil {
		return err
	}
	s.await()
	p, err := c.Exec(ctx, process, caisson.WithExtraFiles(files...), caisson.WithEnv(env...), streams, caisson.WithoutKeeper())
	if err != nil {
		return err
	}
	if err := w.announce(p); err != nil {
		return errors.Join(err, p.Kill())
	}
	if *w.detach {
		return nil
	}
	return follow(ctx, p, s)
}

// spec is the process: from a file, or that of the configuration with changes.
func (ch *changes) spec(c *caisson.Container, args []string) (*specs.Process, error) {
	if *ch.process != "" {
		b, err := os.ReadFile(*ch.process)
		if err != nil {
			return nil, err
		}
		p := &specs.Process{}
		if err := json.Unmarshal(b, p); err != nil {
			return nil, fmt.Errorf("%s: %w", *ch.process, err)
		}
		return p, nil
	}
	if len(args) < 2 {
		return nil, errors.New("process args cannot be empty")
	}
	p, err := c.BundleProcess()
	if err != nil {
		return nil, err
	}
	p.Args, p.Terminal, p.ConsoleSize = args[1:], *ch.tty, nil
	return p, ch.apply(p)
}

func (ch *changes) apply(p *specs.Process) error {
	set := func(to *string, from *string) {
		if *from != "" {
			*to = *from
		}
	}
	set(&p.Cwd, ch.cwd)
	set(&p.SelinuxLabel, ch.label)
	set(&p.ApparmorProfile, ch.apparmor)
	p.Env = append(p.Env, *ch.env...)
	if *ch.noNewPrivs {
		p.NoNewPrivileges = true
	}
	if len(*ch.caps) > 0 && p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	for _, name := range *ch.caps {
		l := p.Capabilities
		for _, set := range []*[]string{&l.Bounding, &l.Effective, &l.Permitted, &l.Inheritable, &l.Ambient} {
			*set = append(*set, name)
		}
	}
	for _, s := range *ch.gids {
		gid, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return fmt.Errorf("parsing %q as gid: %w", s, err)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	if *ch.user == "" {
		return nil
	}
	u, group, grouped := strings.Cut(*ch.user, ":")
	uid, err := strconv.ParseUint(u, 10, 32)
	if err != nil {
		return fmt.Errorf("parsing %q as uid: %w", u, err)
	}
	p.User.UID = uint32(uid)
	if grouped {
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return fmt.Errorf("parsing %q as gid: %w", group, err)
		}
		p.User.GID = uint32(gid)
	}
	return nil
}
