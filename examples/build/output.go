package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caisson-go/caisson/image"
)

// target is a place besides the store where the result goes.
type target struct {
	kind string // oci and docker (an archive of the image), tar (of its files), local (a directory of its files)
	dest string
}

// parseTarget reads -o.
func parseTarget(s string) (t target, err error) {
	if !strings.Contains(s, "=") {
		t = target{kind: "local", dest: s}
		if s == "-" {
			t.kind = "tar"
		}
		return t, nil
	}
	for field := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(field, "=")
		switch k {
		case "type":
			t.kind = v
		case "dest":
			t.dest = v
		default:
			return t, fmt.Errorf("unknown field %q, want type and dest", k)
		}
	}
	switch t.kind {
	case "oci", "docker", "tar", "local":
	default:
		return t, fmt.Errorf("type=%s, want oci, docker, tar or local", t.kind)
	}
	if t.dest == "" || t.dest == "-" && t.kind == "local" {
		return t, errors.New("dest is missing")
	}
	return t, nil
}

// deliver enters the image in the store and brings it to all the places where it shall be.
func (s *stage) deliver(ctx context.Context) (image.Image, error) {
	for _, k := range sortedKeys(s.b.opts.labels) {
		s.state.settings.SetLabel(k, s.b.opts.labels[k])
	}
	names := s.b.opts.tags
	if len(names) == 0 {
		names = []string{""}
	}
	img, err := s.write(ctx, names[0])
	if err != nil {
		return img, err
	}
	for _, n := range names[1:] {
		if err := s.b.store.Tag(ctx, names[0], n); err != nil {
			return img, err
		}
	}
	for _, t := range s.b.opts.outputs {
		st := s.b.progress.step("output " + t.kind + " " + t.dest)
		err := s.output(ctx, t, img)
		if st.done(err); err != nil {
			return img, err
		}
	}
	if s.b.opts.push {
		for i, n := range names {
			st := s.b.progress.step("push " + n)
			err := s.b.store.Push(ctx, n, n, image.PushOptions{MountFrom: mountFrom(n, append(names[:i:i], s.state.from))})
			if st.done(err); err != nil {
				return img, err
			}
		}
	}
	return img, nil
}

// mountFrom are the repositories of some names that are on the same registry as to: what they have need not be sent again.
func mountFrom(to string, names []string) (repos []string) {
	ref, _ := image.ParseReference(to) // the options were read so
	for _, n := range names {
		has, err := image.ParseReference(n)
		if err == nil && has.Registry == ref.Registry && has.Repository != ref.Repository && !slices.Contains(repos, has.Repository) {
			repos = append(repos, has.Repository)
		}
	}
	return repos
}

func (s *stage) output(ctx context.Context, t target, img image.Image) error {
	ref := img.Name
	if ref == "" {
		ref = img.Descriptor.Digest.String()
	}
	switch t.kind {
	case "local":
		return s.extract(ctx, t.dest)
	case "tar":
		return toFile(t.dest, func(w io.Writer) error { return s.flatten(ctx, w) })
	}
	return toFile(t.dest, func(w io.Writer) error { return s.b.store.Save(ctx, w, ref) }) // an archive that is both
}

// toFile writes a file that is there when it is whole, or standard output.
func toFile(dest string, write func(w io.Writer) error) error {
	if dest == "-" {
		return write(os.Stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(dest), ".caisson-build-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), dest)
}

// extract makes a directory of the files. One that holds something is refused: what is there is never merged with what an image has.
func (s *stage) extract(ctx context.Context, dest string) error {
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dest)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dest)
	}
	if s.state.ref == "" {
		return nil
	}
	notes, err := s.b.store.Extract(ctx, s.state.ref, dest, image.UnpackOptions{Platform: &s.platform})
	for _, n := range notes {
		s.b.progress.line("! %s", n)
	}
	return err
}

// flatten writes the files as one archive.
func (s *stage) flatten(ctx context.Context, w io.Writer) error {
	t, closeTree, err := s.tree(ctx)
	if err != nil {
		return err
	}
	defer closeTree()
	src, err := collect(ctx, t, "", nil)
	if err != nil {
		return err
	}
	l := newLayer(emptyTree{}, s.b.now(), s.b.epoch)
	for i := range src.items {
		it := &src.items[i]
		if it.node.mode&fs.ModeSocket != 0 || it.name == "" {
			continue
		}
		if err := l.copyNode(path.Clean(it.name), it.node, it, owner{}, false); err != nil {
			return err
		}
	}
	return l.write(w)
}
