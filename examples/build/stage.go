package main

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// stage is one FROM with what follows it.
type stage struct {
	b        *builder
	n        int
	spec     *instructions.Stage
	platform ocispec.Platform
	scope    *scope
	state    state
	steps    int
}

// build does all instructions in their order.
func (s *stage) build(ctx context.Context) error {
	triggers, err := s.from(ctx)
	if err != nil {
		return s.b.file.fault(s.spec.Location, err)
	}
	for _, text := range triggers {
		c, err := parseTrigger(text)
		if err == nil {
			err = s.do(ctx, c)
		}
		if err != nil {
			return s.b.file.fault(s.spec.Location, fmt.Errorf("ONBUILD %s: %w", text, err))
		}
	}
	for _, c := range s.spec.Commands {
		if err := s.do(ctx, c); err != nil {
			return s.b.file.fault(c.Location(), err)
		}
	}
	return nil
}

func (s *stage) label(text string) string {
	name := s.spec.Name
	if name == "" {
		name = fmt.Sprint("stage ", s.n)
	}
	first, _, more := strings.Cut(text, "\n")
	if more {
		first += " …"
	}
	return fmt.Sprintf("[%s %d/%d] %s", name, s.steps, len(s.spec.Commands)+1, first)
}

// from finds the base, and returns the instructions that it wants to be done first.
func (s *stage) from(ctx context.Context) (triggers []string, err error) {
	s.platform = s.b.platform
	name, err := s.b.global.word(s.spec.BaseName)
	if err == nil && name == "" {
		err = fmt.Errorf("the base name %q expands to nothing", s.spec.BaseName)
	}
	if err == nil && s.spec.Platform != "" {
		err = s.choosePlatform()
	}
	if err != nil {
		return nil, err
	}
	s.steps++
	st := s.b.progress.step(s.label(s.spec.SourceCode))
	defer func() { st.done(err) }()
	if i, ok := s.b.file.stageNumber(name, s.n); ok && !isNumber(name) {
		base, err := s.b.stage(ctx, i)
		if err != nil {
			return nil, err
		}
		s.platform, s.state = base.platform, base.state.clone()
	} else if name == "scratch" {
		s.state.settings.Platform = s.platform
	} else if err := s.fromImage(ctx, st, name); err != nil {
		return nil, err
	}
	if _, ok := newVars(s.state.settings.Env...).values["PATH"]; !ok { // so that ENV can add to it
		s.state.settings.SetEnv("PATH", rootfs.DefaultPath)
	}
	s.scope = &scope{env: newVars(s.state.settings.Env...), args: newVars(), escape: s.b.file.escape}
	triggers = s.state.settings.OnBuild
	s.state.settings.OnBuild, s.state.cmdSet = nil, false
	return triggers, nil
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

func (s *stage) choosePlatform() error {
	text, err := s.b.global.word(s.spec.Platform)
	if err != nil {
		return err
	}
	s.platform, err = image.ParsePlatform(text)
	return err
}

func (s *stage) fromImage(ctx context.Context, st *step, name string) error {
	info, err := s.b.find(ctx, st, name, s.platform)
	if err != nil {
		return err
	}
	if s.state.settings, err = s.b.settingsOf(info); err != nil {
		return err
	}
	s.state.from, s.state.base, s.state.diffIDs, s.state.created = info.Name, info.Manifest.Digest.String(), info.Config.DiffIDs, info.Config.Spec.Created
	if len(info.Layers) > 0 {
		s.state.ref = s.state.base
	}
	return nil
}

// do does one instruction.
func (s *stage) do(ctx context.Context, c instructions.Command) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	s.steps++
	text := fmt.Sprint(c)
	if err := s.scope.expand(c); err != nil {
		return err
	}
	var work func(ctx context.Context, st *step) error
	switch c := c.(type) {
	case *instructions.RunCommand:
		work = func(ctx context.Context, st *step) error { return s.run(ctx, st, c) }
	case *instructions.CopyCommand:
		work = func(ctx context.Context, st *step) error { return s.copy(ctx, st, copyOf(c)) }
	case *instructions.AddCommand:
		work = func(ctx context.Context, st *step) error { return s.copy(ctx, st, addOf(c)) }
	case *instructions.WorkdirCommand:
		work = func(ctx context.Context, st *step) error { return s.workdir(ctx, st, c) }
	default: // what only says something about the containers takes no time
		if err := s.set(c); err != nil {
			return err
		}
		s.state.note(strings.ToUpper(c.Name()) + " " + rest(text))
		return nil
	}
	st := s.b.progress.step(s.label(text))
	err := work(ctx, st)
	st.done(err)
	return err
}

// rest is an instruction without its name.
func rest(text string) string {
	_, r, _ := strings.Cut(text, " ")
	return strings.TrimSpace(r)
}

// workdir makes the directory if it is missing, for the user of the image.
func (s *stage) workdir(ctx context.Context, st *step, c *instructions.WorkdirCommand) error {
	dir := c.Path
	if !path.IsAbs(dir) {
		dir = path.Join("/", s.state.settings.WorkingDir, dir)
	}
	dir = path.Clean(dir)
	s.state.settings.WorkingDir = dir
	user := s.state.settings.User
	return s.change(ctx, st, "WORKDIR "+dir, []keyed{always(s.cacheKey("workdir", dir, user))}, func(ctx context.Context) (*pending, error) {
		t, closeTree, err := s.tree(ctx)
		if err != nil {
			return nil, err
		}
		defer closeTree()
		if isDir(t, clean(dir)) {
			return &pending{}, nil
		}
		own := owner{}
		if user != "" {
			if own, err = lookUpOwner(t, user, s.b.tmp); err != nil {
				return nil, err
			}
		}
		l := newLayer(t, s.b.now(), s.b.epoch)
		if _, err := l.mkdirs(clean(dir), own); err != nil {
			return nil, err
		}
		return archived(l.write), nil
	})
}
