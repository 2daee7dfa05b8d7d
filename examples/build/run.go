package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// running is a RUN: what its container is made of, and what of it the cache knows.
type running struct {
	args   []string
	env    []string
	opts   []caisson.Option
	stubs  []string // paths that are made for mounts, and belong to no layer
	hidden []string // files that come from this builder
	known  []string // what the cache knows it by
	// late is what is only prepared where the cache does not have the step.
	late []func(ctx context.Context, below tree) error
	undo []func() error

	secrets map[string]bool // directories in memory
}

func (r *running) close() error { return (&pending{undo: r.undo}).close() }

// pipes is where heredocs that are scripts are put.
const pipes = "/dev/pipes"

// run runs a command over what there is, and keeps what it changes as a layer.
func (s *stage) run(ctx context.Context, st *step, c *instructions.RunCommand) (err error) {
	r := &running{}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := s.command(r, c); err != nil {
		return err
	}
	if err := s.allowed(c); err != nil {
		return err
	}
	for _, m := range instructions.GetMounts(c) {
		if err := s.mount(ctx, st, r, m); err != nil {
			return fmt.Errorf("--mount=type=%s: %w", m.Type, err)
		}
	}
	mode := instructions.GetNetwork(c)
	r.env = append(r.env, s.scope.run()...)
	r.known = append(r.known, fmt.Sprintf("%q %q %q %q %s", r.args, r.env, s.state.settings.User, s.state.settings.WorkingDir, mode))
	r.env = append(proxies(s.b.opts.buildArgs), r.env...)
	return s.change(ctx, st, c.String(), []keyed{always(s.cacheKey(append([]string{"run"}, r.known...)...))}, func(ctx context.Context) (*pending, error) {
		if err := s.connect(st, r, mode); err != nil {
			return nil, err
		}
		return s.execute(ctx, st, r)
	})
}

// allowed refuses what would give the command more than other commands have.
func (s *stage) allowed(c *instructions.RunCommand) error {
	if sec := instructions.GetSecurity(c); sec != instructions.SecuritySandbox {
		return fmt.Errorf("--security=%s: every RUN is contained here", sec)
	}
	if len(instructions.GetDevices(c)) > 0 {
		return errors.New("--device: a build has no devices but the usual ones")
	}
	if s.platform.OS != "linux" {
		return fmt.Errorf("a command for %s cannot be run", platformName(s.platform))
	}
	return nil
}

// command finds what is executed: a list as it is, a line for the shell, or a heredoc.
func (s *stage) command(r *running, c *instructions.RunCommand) error {
	r.args = c.CmdLine
	if len(c.Files) > 0 {
		if len(c.CmdLine) != 1 || !c.PrependShell {
			return fmt.Errorf("a heredoc goes with the shell form: %q", c.CmdLine)
		}
		if parser.MustParseHeredoc(c.CmdLine[0]) != nil {
			f := c.Files[0]
			text := f.Data
			if f.Chomp {
				text = parser.ChompHeredocContent(text)
			}
			r.args = []string{text}
			if strings.HasPrefix(text, "#!") { // a script of its own
				script := path.Join(pipes, f.Name)
				r.args = []string{script}
				r.known = append(r.known, text)
				r.opts = append(r.opts, caisson.WithMount(rootfs.TmpfsMount(pipes, 1<<20+int64(len(text)))), caisson.WithFile(script, []byte(text), 0o755))
			}
		} else {
			line := c.CmdLine[0]
			for _, f := range c.Files {
				line += "\n" + f.Data + f.Name
			}
			r.args = []string{line}
		}
	}
	if c.PrependShell {
		r.args = append(append([]string{}, s.shell()...), strings.Join(r.args, " "))
	}
	if len(r.args) == 0 || r.args[0] == "" {
		return errors.New("there is nothing to run")
	}
	return nil
}

// source is the root filesystem of a RUN: the layers so far, with a directory that takes the changes.
func (s *stage) source(r *running, upper string) (rootfs.Source, error) {
	if s.state.ref != "" {
		return s.b.store.Rootfs(s.state.ref).Platform(s.platform).Upper(upper), nil
	}
	empty := filepath.Join(upper, "empty")
	return rootfs.Overlay(empty).Upper(upper), os.Mkdir(empty, 0o755)
}

// execute runs the command and makes a layer of the changes.
func (s *stage) execute(ctx context.Context, st *step, r *running) (_ *pending, err error) {
	upper, err := s.b.tempDir("run")
	if err != nil {
		return nil, err
	}
	p := &pending{undo: []func() error{func() error { return s.b.remove(upper) }}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	src, err := s.source(r, upper)
	if err != nil {
		return nil, err
	}
	below, closeTree, err := s.tree(ctx)
	if err != nil {
		return nil, err
	}
	defer closeTree()
	for _, prepare := range r.late {
		if err := prepare(ctx, below); err != nil {
			return nil, err
		}
	}
	c, err := s.contain(ctx, st, r, src, below)
	if c != nil {
		p.undo = append(p.undo, c.Close)
	}
	if err != nil {
		return nil, err
	}
	skip, changed, err := leftOut(filepath.Join(upper, "upper"), below, r)
	if err != nil || !changed {
		return p, err
	}
	o := image.TreeOptions{Skip: func(p string) bool { return skip[p] }}
	if s.b.epoch != nil {
		o.Latest = *s.b.epoch
	}
	tree, err := s.changes(ctx, p, c, filepath.Join(upper, "upper"), &o)
	if err != nil {
		return nil, err
	}
	l := image.UpperLayer(tree, o)
	p.layer = &l
	return p, nil
}

// contain runs the container, which is returned, stopped, for who wants to read it.
func (s *stage) contain(ctx context.Context, st *step, r *running, src rootfs.Source, below tree) (*caisson.Container, error) {
	out := &output{s: st}
	user, dir := s.state.settings.User, s.state.settings.WorkingDir
	if user == "" {
		user = "0"
	}
	if dir == "" {
		dir = "/"
	}
	opts := append([]caisson.Option{
		caisson.WithRootfs(src),
		caisson.WithCommand(r.args[0], r.args[1:]...),
		caisson.WithExactEnv(), caisson.WithEnv(r.env...),
		caisson.WithUser(user), caisson.WithDir(dir),
		caisson.WithStdout(out), caisson.WithStderr(out),
		caisson.WithNoNewPrivileges(false), // su and sudo, which installers use; what they gain is what root has here
	}, r.opts...)
	if !isDir(below, clean(dir)) {
		opts = append(opts, caisson.WithFiles(rootfs.File{Path: dir, Dir: true, Mode: 0o755}))
	}
	c, err := caisson.New(opts...)
	if err != nil {
		return nil, err
	}
	err = c.Run(ctx)
	tail := out.end()
	var exit *caisson.ExitError
	if errors.As(err, &exit) {
		err = &commandError{args: r.args, result: exit.Result, tail: tail}
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return c, err
}

// commandError is a RUN whose command failed.
type commandError struct {
	args   []string
	result *caisson.Result
	tail   string
}

func (e *commandError) Error() string {
	text := fmt.Sprintf("%q: %v", e.args, e.result)
	if e.tail != "" {
		text += "\n  " + strings.ReplaceAll(e.tail, "\n", "\n  ")
	}
	return text
}

// engineMade are directories that mounts of every container are on. Where an image lacks them they are made, and belong to no layer.
var engineMade = []string{"proc", "sys", "dev"}

// leftOut finds what in the upper directory is not the command's doing, and says whether anything else is there.
func leftOut(upper string, below tree, r *running) (skip map[string]bool, changed bool, err error) {
	skip = map[string]bool{}
	for _, h := range r.hidden {
		skip[h] = true
	}
	for _, p := range append(append(append([]string{}, engineMade...), r.hidden...), r.stubs...) {
		real, err := resolve(below, p, true)
		if err != nil {
			real = clean(p) // something of it is missing below
		}
		for ; real != ""; real = parentOf(real) {
			if _, err := below.lstat(real); err == nil {
				break
			}
			if !skip[real] && !onlySkipped(upper, real, skip) && !isStub(p, real, r) {
				break
			}
			skip[real] = true
		}
	}
	entries, err := os.ReadDir(upper)
	for _, e := range entries {
		changed = changed || !skip[e.Name()]
	}
	return skip, changed, err
}

// isStub says that real is the target of a mount itself, and no directory above it.
func isStub(p, real string, r *running) bool { return clean(p) == real }

// onlySkipped says that a directory holds nothing of the command's. The path lies in directories that the engine made.
func onlySkipped(upper, p string, skip map[string]bool) bool {
	root, err := rootfs.OpenRoot(upper)
	if err != nil {
		return false
	}
	defer root.Close()
	if info, err := root.Lstat(p); err != nil || !info.IsDir() {
		return false
	}
	entries, err := root.ReadDir(p)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if !skip[path.Join(p, e.Name())] {
			return false
		}
	}
	return true
}

// remove deletes what a container has written. An ordinary user cannot delete what users of the container own in directories of theirs:
// its root user can.
func (b *builder) remove(dir string) error {
	_ = os.Chmod(filepath.Join(dir, "work", "work"), 0o700) // overlayfs leaves whiteouts in it, and closes it
	err := os.RemoveAll(dir)
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	c, nerr := caisson.New(caisson.WithRootfs(rootfs.HostAll()), caisson.WithMount(rootfs.BindMount(filepath.Dir(dir), "/mnt")),
		caisson.WithCommand("rm", "-rf", "/mnt/"+filepath.Base(dir)))
	if nerr != nil {
		return errors.Join(err, nerr)
	}
	defer c.Close()
	if nerr := c.Run(context.Background()); nerr != nil {
		return errors.Join(err, nerr)
	}
	return nil
}
