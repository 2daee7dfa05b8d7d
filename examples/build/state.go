package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/image"
)

// state is what a stage has made so far: an image in the store that has the files, and what the image to be says about its containers.
type state struct {
	from     string // the name of the image of FROM; empty if it has none
	base     string // its digest; empty for scratch
	ref      string // one that has all layers so far; empty if there are none
	diffIDs  []string
	changes  int // instructions that changed files
	settings image.Settings
	lines    []line     // history since base
	created  *time.Time // when the last layer was made
	cmdSet   bool       // CMD was given in this stage
}

// line is one of the history: an instruction, and the layer of ref that it made, if it made one.
type line struct {
	history ocispec.History
	layer   int
}

// settingsOf reads what an image of the store says, Docker's extensions included.
func (b *builder) settingsOf(info *image.Info) (image.Settings, error) {
	data, err := os.ReadFile(filepath.Join(b.store.Dir(), "blobs", "sha256", info.ID.Encoded()))
	if err != nil {
		return image.Settings{}, err
	}
	var doc struct {
		Author string
		Config struct {
			ocispec.ImageConfig
			Healthcheck    *image.Healthcheck
			OnBuild, Shell []string
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return image.Settings{}, err
	}
	return image.Settings{ImageConfig: doc.Config.ImageConfig, Healthcheck: doc.Config.Healthcheck, OnBuild: doc.Config.OnBuild, Shell: doc.Config.Shell,
		Author: doc.Author, Platform: info.Config.Platform}, nil
}

// clone is what a stage begins with that is made FROM another.
func (s *state) clone() state {
	c := *s
	c.diffIDs, c.lines = slices.Clone(s.diffIDs), slices.Clone(s.lines)
	set := &c.settings
	set.Env, set.Entrypoint, set.Cmd = slices.Clone(set.Env), slices.Clone(set.Entrypoint), slices.Clone(set.Cmd)
	set.Labels, set.Volumes, set.ExposedPorts = maps.Clone(set.Labels), maps.Clone(set.Volumes), maps.Clone(set.ExposedPorts)
	set.OnBuild, set.Shell = slices.Clone(set.OnBuild), slices.Clone(set.Shell)
	return c
}

// note adds a line to the history that stands for no files.
func (s *state) note(text string) {
	h := ocispec.History{Created: s.created, CreatedBy: text, EmptyLayer: true}
	s.lines = append(s.lines, line{history: h})
}

// pending is a layer to be. Without a layer nothing was changed.
type pending struct {
	layer *image.Layer
	undo  []func() error
}

func (p *pending) close() error {
	var errs []error
	for i := len(p.undo) - 1; i >= 0; i-- {
		errs = append(errs, p.undo[i]())
	}
	p.undo = nil
	return errors.Join(errs...)
}

// archived is a layer that write makes, compressed on the way.
func archived(write func(w io.Writer) error) *pending {
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		z, err := gzip.NewWriterLevel(w, gzip.DefaultCompression)
		if err == nil {
			err = write(z)
		}
		if err == nil {
			err = z.Close()
		}
		w.CloseWithError(err)
	}()
	l := image.TarLayer(r)
	return &pending{layer: &l, undo: []func() error{func() error {
		err := r.Close()
		<-ended // what it reads from may be closed now
		return err
	}}}
}

// commit lays a layer over what there is, under a name of the cache.
func (s *stage) commit(ctx context.Context, p *pending, text, name string) error {
	now := s.b.now()
	h := ocispec.History{Created: &now, CreatedBy: text}
	l := image.NoLayer(h)
	if p.layer != nil {
		l = p.layer.History(h)
	}
	_, err := s.b.store.Write(ctx, name, image.ImageSpec{Base: s.state.ref, Platform: &s.platform, Layers: []image.Layer{l}, Created: &now})
	if err != nil {
		return err
	}
	info, err := s.b.store.Inspect(ctx, name, &s.platform)
	if err == nil {
		s.adopt(info)
	}
	return err
}

// write makes the image of a stage: the base with its history, a layer for each instruction that made one, and the settings.
func (s *stage) write(ctx context.Context, name string) (image.Image, error) {
	var layers []image.Layer
	for _, l := range s.state.lines {
		if l.history.EmptyLayer {
			layers = append(layers, image.NoLayer(l.history))
		} else {
			layers = append(layers, image.ImageLayer(s.state.ref, l.layer).History(l.history))
		}
	}
	created := s.state.created
	if created == nil {
		now := s.b.now()
		created = &now
	}
	return s.b.store.Write(ctx, name, image.ImageSpec{Base: s.state.base, Platform: &s.platform, Layers: layers, Created: created,
		Edit: func(to *image.Settings) error { *to = s.state.settings; return nil }})
}

// now is the time of what is made: that of the epoch where there is one.
func (b *builder) now() time.Time {
	if b.epoch != nil {
		return b.epoch.UTC()
	}
	return time.Now().UTC().Truncate(time.Second)
}

// tree shows the files of the stage so far.
func (s *stage) tree(ctx context.Context) (tree, func() error, error) {
	return s.b.treeOf(ctx, s.state.ref, s.platform)
}

func (b *builder) treeOf(ctx context.Context, ref string, p ocispec.Platform) (tree, func() error, error) {
	none := func() error { return nil }
	if ref == "" {
		return emptyTree{}, none, nil
	}
	u, err := b.store.Unpack(ctx, ref, image.UnpackOptions{Platform: &p})
	if err != nil {
		return nil, nil, err
	}
	t, err := newLayersTree(u.Dirs)
	if err != nil {
		return nil, nil, err
	}
	if os.Geteuid() != 0 && len(u.Dirs) == len(u.Layers) {
		t.owners = b.owners(u.Layers)
	}
	return t, t.Close, nil
}
