package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/caisson-go/caisson/image"
)

// builder is one build.
type builder struct {
	keys
	opts     *options
	store    *image.Store
	work     string // a directory of all builders, beside the store
	tmp      string // and one of this builder's alone
	unlock   func() error
	ctx      *buildContext
	file     *dockerfile
	global   *scope
	platform ocispec.Platform // what is built for
	epoch    *time.Time
	progress *progress
	stages   []*future
	pulls    keys
	index    ownerIndex
}

// future is a stage that is built once, whoever asks first.
type future struct {
	once sync.Once
	done *stage
	err  error
}

// open reads the Dockerfile and the context.
func newBuilder(o *options, store *image.Store, p *progress) (b *builder, err error) {
	b = &builder{opts: o, store: store, progress: p, work: store.Dir() + "-build", platform: image.LocalPlatform()}
	if o.platform != nil {
		b.platform = *o.platform
	}
	if b.epoch, err = parseEpoch(o.buildArgs); err != nil {
		return nil, err
	}
	files, err := openContext(o.context)
	if err != nil {
		return nil, fmt.Errorf("context: %w", err)
	}
	defer func() {
		if err != nil {
			files.Close()
		}
	}()
	b.ctx = files
	if b.file, err = b.ctx.readDockerfile(o.context, o.file, os.Stdin); err != nil {
		return nil, err
	}
	if b.global, err = globalScope(b.file, o.buildArgs, platformArgs(image.LocalPlatform(), b.platform, o.target)); err != nil {
		return nil, err
	}
	for range b.file.stages {
		b.stages = append(b.stages, &future{})
	}
	return b, b.openTemp()
}

// openTemp makes a directory that lasts as long as the build, and removes those of builds that were killed: a lock tells them from
// others that go on.
func (b *builder) openTemp() error {
	dir := filepath.Join(b.work, "tmp")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	all, _, err := lockCache(context.Background(), filepath.Join(b.work, "lock"), instructions.MountSharingLocked)
	if err != nil {
		return err
	}
	defer all()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		old := filepath.Join(dir, e.Name())
		unlock, ok, err := lockCache(context.Background(), filepath.Join(old, "lock"), instructions.MountSharingPrivate)
		if err == nil && ok {
			err = errors.Join(b.remove(old), unlock())
		}
		if err != nil {
			b.progress.line("! what a build that was killed has left: %v", err)
		}
	}
	if b.tmp, err = os.MkdirTemp(dir, "build-"); err != nil {
		return err
	}
	b.unlock, _, err = lockCache(context.Background(), filepath.Join(b.tmp, "lock"), instructions.MountSharingLocked)
	return err
}

func (b *builder) Close() error {
	return errors.Join(b.ctx.Close(), b.remove(b.tmp), b.unlock())
}

// parseEpoch reads SOURCE_DATE_EPOCH, a time in seconds, after which no file of a layer was changed: -build-arg, else the environment.
func parseEpoch(buildArgs map[string]string) (*time.Time, error) {
	text, ok := buildArgs["SOURCE_DATE_EPOCH"]
	if !ok {
		text = os.Getenv("SOURCE_DATE_EPOCH")
	}
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH=%q is no number of seconds", text)
	}
	t := time.Unix(n, 0)
	return &t, nil
}

// target is the number of the stage that is wanted.
func (b *builder) target() (int, error) {
	if b.opts.target == "" {
		return len(b.file.stages) - 1, nil
	}
	i, ok := b.file.stageNumber(b.opts.target, len(b.file.stages))
	if !ok {
		return 0, fmt.Errorf("%s: it has no stage %q", b.file.name, b.opts.target)
	}
	return i, nil
}

// build builds the target, and what it needs at the same time; other stages are not looked at.
func (b *builder) build(ctx context.Context) (*stage, error) {
	target, err := b.target()
	if err != nil {
		return nil, err
	}
	for _, w := range checkBuildArgs(b.file, b.opts.buildArgs) {
		b.progress.line("! %s", w)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, i := range b.needed(target) {
		g.Go(func() error { _, err := b.stage(ctx, i); return err })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return b.stages[target].done, nil
}

// stage builds a stage, or waits until it is built.
func (b *builder) stage(ctx context.Context, i int) (*stage, error) {
	f := b.stages[i]
	f.once.Do(func() {
		s := &stage{b: b, n: i, spec: &b.file.stages[i]}
		f.err = s.build(ctx)
		f.done = s
	})
	return f.done, f.err
}

// needed finds the stages that one is made of: those of FROM, COPY --from and RUN --mount=from.
func (b *builder) needed(target int) []int {
	seen := map[int]bool{}
	var add func(i int)
	add = func(i int) {
		if seen[i] {
			return
		}
		seen[i] = true
		for _, name := range b.references(i) {
			if j, ok := b.file.stageNumber(name, i); ok {
				add(j)
			}
		}
	}
	add(target)
	var out []int
	for i := range b.file.stages {
		if seen[i] {
			out = append(out, i)
		}
	}
	return out
}

// references are the names of stages or images that a stage mentions.
func (b *builder) references(i int) []string {
	st := &b.file.stages[i]
	var out []string
	if name, err := b.global.word(st.BaseName); err == nil {
		out = append(out, name)
	}
	for _, c := range st.Commands {
		switch c := c.(type) {
		case *instructions.CopyCommand:
			out = append(out, c.From)
		case *instructions.RunCommand:
			for _, m := range instructions.GetMounts(c) {
				out = append(out, m.From)
			}
		}
	}
	return out
}

// find makes sure that an image is in the store, and tells what it is.
func (b *builder) find(ctx context.Context, st *step, name string, p ocispec.Platform) (*image.Info, error) {
	unlock := b.pulls.lockKey(name + " " + platformName(p))
	defer unlock()
	info, err := b.store.Inspect(ctx, name, &p)
	missing := errors.Is(err, image.ErrNotFound) || errors.Is(err, image.ErrPlatform)
	if err != nil && !missing || err == nil && !b.opts.pull {
		return info, err
	}
	if err == nil && b.pulls.isFresh(name) {
		return info, nil
	}
	st.note("pulling %s", name)
	if _, err := b.store.Pull(ctx, name, image.PullOptions{Platform: &p}); err != nil {
		return nil, err
	}
	b.pulls.noteFresh(name)
	return b.store.Inspect(ctx, name, &p)
}

// tempDir makes a directory that lasts until the end of a step.
func (b *builder) tempDir(what string) (string, error) {
	return os.MkdirTemp(b.tmp, what+"-")
}
