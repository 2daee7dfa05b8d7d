package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// crosser makes images that say something of another's manifest or config that is not so.
type crosser struct {
	t                   *testing.T
	s                   *Store
	own, victim, config ocispec.Descriptor
}

func newCrosser(t *testing.T) *crosser {
	t.Helper()
	c := &crosser{t: t, s: openStore(t, Options{})}
	c.victim = putImage(t, c.s, "victim", plain(layer(t, file("x", "x")))).Descriptor
	c.config = must[*ocispec.Manifest](t)(c.s.manifest(c.victim)).Config
	c.own = putImage(t, c.s, "own", plain(layer(t, file("own", "")))).Descriptor
	return c
}

func (c *crosser) put(kind string, doc any) ocispec.Descriptor {
	c.t.Helper()
	use := must[*os.File](c.t)(c.s.use(context.Background()))
	defer use.Close()
	return must[ocispec.Descriptor](c.t)(c.s.putBlob(kind, must[[]byte](c.t)(json.Marshal(doc))))
}

func (c *crosser) index(list ...ocispec.Descriptor) ocispec.Descriptor {
	return c.put(ocispec.MediaTypeImageIndex, newIndex(list))
}

// beside is an index of an image that is whole, and of d, for another platform.
func (c *crosser) beside(d ocispec.Descriptor) ocispec.Descriptor {
	own, p := c.own, LocalPlatform()
	own.Platform, d.Platform = &p, &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	return c.index(own, d)
}

// layered is an artifact one of whose layers is d.
func (c *crosser) layered(d ocispec.Descriptor) ocispec.Descriptor {
	m := must[*ocispec.Manifest](c.t)(c.s.manifest(c.own))
	m.Config.MediaType, m.Layers = "application/x-none", []ocispec.Descriptor{d}
	return c.put(ocispec.MediaTypeImageManifest, m)
}

// deep is the other image below so many indexes.
func (c *crosser) deep(n int) ocispec.Descriptor {
	d := c.victim
	for range n {
		d = c.index(d)
	}
	return d
}

// said is d with another media type, and a size that is off by more.
func said(d ocispec.Descriptor, kind string, more int64) ocispec.Descriptor {
	d.MediaType = kind
	d.Size += more
	return d
}

// crossings need nothing of what they name, so that they are whole, whatever they say.
var crossings = map[string]func(c *crosser) ocispec.Descriptor{
	"layer":            func(c *crosser) ocispec.Descriptor { return c.layered(said(c.victim, ocispec.MediaTypeImageLayer, 0)) },
	"layer of config":  func(c *crosser) ocispec.Descriptor { return c.layered(said(c.config, ocispec.MediaTypeImageLayer, 0)) },
	"layer as index":   func(c *crosser) ocispec.Descriptor { return c.layered(said(c.victim, ocispec.MediaTypeImageIndex, 0)) },
	"unknown":          func(c *crosser) ocispec.Descriptor { return c.beside(said(c.victim, "application/x-none", 0)) },
	"unknown config":   func(c *crosser) ocispec.Descriptor { return c.beside(said(c.config, "application/x-none", 0)) },
	"manifest, index":  func(c *crosser) ocispec.Descriptor { return c.beside(said(c.victim, ocispec.MediaTypeImageIndex, 0)) },
	"manifest, config": func(c *crosser) ocispec.Descriptor { return c.beside(said(c.victim, ocispec.MediaTypeImageConfig, 0)) },
	"manifest, Docker": func(c *crosser) ocispec.Descriptor { return c.beside(said(c.victim, dockerManifest, 0)) },
	"config, manifest": func(c *crosser) ocispec.Descriptor {
		return c.beside(said(c.config, ocispec.MediaTypeImageManifest, 0))
	},
	"too short":       func(c *crosser) ocispec.Descriptor { return c.beside(said(c.victim, c.victim.MediaType, -1)) },
	"too long":        func(c *crosser) ocispec.Descriptor { return c.beside(said(c.victim, c.victim.MediaType, 1)) },
	"too long config": func(c *crosser) ocispec.Descriptor { return c.beside(said(c.config, c.config.MediaType, maxConfig)) },
	"deep":            func(c *crosser) ocispec.Descriptor { return c.deep(maxNested) },
	"too deep":        func(c *crosser) ocispec.Descriptor { return c.deep(maxNested + 1) },
	"far too deep":    func(c *crosser) ocispec.Descriptor { return c.deep(maxNested + 9) },
}

// What an image says of the documents of another takes nothing from it. Digests can be named by anybody: index.json may have the one that names them wrongly
// before the one that they belong to, and a snapshot may be all that still needs them.
func TestCrossedImages(t *testing.T) {
	ctx := context.Background()
	for what, cross := range crossings {
		for _, keeper := range []string{"name", "snapshot"} {
			t.Run(what+" "+keeper, func(t *testing.T) {
				c := newCrosser(t)
				u := must[*Unpacked](t)(c.s.Unpack(ctx, "victim", UnpackOptions{}))
				if err := c.s.putImages(ctx, Image{Name: "docker.io/library/evil:latest", Descriptor: cross(c)}); err != nil {
					t.Fatal(err)
				}
				if keeper == "name" {
					if err := c.s.Tag(ctx, "victim", "kept"); err != nil {
						t.Fatal(err)
					}
				} else if _, err := c.s.NewSnapshot(ctx, "kept", "victim", SnapshotOptions{}); err != nil {
					t.Fatal(err)
				}
				// The entry that came first goes, so that the other image's is before.
				if err := errors.Join(c.s.Remove(ctx, "victim"), c.s.Remove(ctx, "own")); err != nil {
					t.Fatal(err)
				}
				whole := func() {
					t.Helper()
					if f, err := c.s.Verify(ctx); err != nil || len(f) != 0 {
						t.Errorf("faults %+v, %v", f, err)
					}
				}
				whole()
				before := names(t, c.s)
				if f, err := c.s.Repair(ctx); err != nil || len(f) != 0 {
					t.Errorf("repaired %+v, %v", f, err)
				}
				if f, err := c.s.GC(ctx); err != nil || f.Layers != 0 {
					t.Errorf("removed %+v, %v", f, err)
				}
				whole()
				if after := names(t, c.s); !slices.Equal(before, after) {
					t.Errorf("the names were %v and are %v", before, after)
				}
				for _, d := range []ocispec.Descriptor{c.victim, c.config} {
					if !c.s.hasBlob(d) {
						t.Errorf("%s has gone", d.MediaType)
					}
				}
				if got, err := os.ReadFile(filepath.Join(u.Dirs[0], "x")); string(got) != "x" {
					t.Errorf("unpacked: %q, %v", got, err)
				}
				if keeper == "name" {
					if _, err := c.s.Unpack(ctx, "kept", UnpackOptions{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// A manifest that says something false of a layer is itself at fault: its names go, and no blob that is whole does, its own layer least of all, which may be another's.
func TestRepairKeepsWhole(t *testing.T) {
	ctx := context.Background()
	c := newCrosser(t)
	m := must[*ocispec.Manifest](t)(c.s.manifest(c.victim))
	m.Layers[0].Size++
	long := c.put(ocispec.MediaTypeImageManifest, m)
	none := said(c.own, ocispec.MediaTypeImageIndex, 0)
	if err := c.s.putImages(ctx, Image{Name: "docker.io/library/long:1", Descriptor: long}, Image{Name: "docker.io/library/none:1", Descriptor: none}); err != nil {
		t.Fatal(err)
	}
	faults := must[[]Fault](t)(c.s.Repair(ctx))
	for d, want := range map[string]error{long.Digest.String(): ErrSize, none.Digest.String(): ErrDocument} {
		if !slices.ContainsFunc(faults, func(f Fault) bool { return f.Digest.String() == d && errors.Is(f.Err, want) && len(f.Images) == 1 }) {
			t.Errorf("no %v among %+v", want, faults)
		}
	}
	if got := names(t, c.s); len(faults) != 2 || !slices.Equal(got, []string{"docker.io/library/own:latest", "docker.io/library/victim:latest"}) {
		t.Errorf("%v, %+v", got, faults)
	}
	for _, name := range []string{"own", "victim"} {
		if _, err := c.s.Unpack(ctx, name, UnpackOptions{}); err != nil {
			t.Error(err)
		}
	}
	if f, err := c.s.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// One blob that cannot be read, and what is no blob at all, are faults like others, and not the end of looking for others.
func TestVerifyUnreadable(t *testing.T) {
	ctx := context.Background()
	for what, c := range map[string]struct {
		put  func(path string) error
		want error
	}{
		"input/output error": {func(p string) error { return os.Symlink("/proc/self/mem", p) }, syscall.EIO}, // at an address where nothing is
		"directory":          {func(p string) error { return os.Mkdir(p, 0o700) }, ErrCorrupt},
		"FIFO":               {mkfifo, ErrCorrupt},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStore(t, Options{})
			bad, lost := layer(t, file("bad", "")), layer(t, file("lost", ""))
			putImage(t, s, "bad", plain(bad))
			putImage(t, s, "lost", plain(lost))
			putImage(t, s, "good", plain(layer(t, file("good", ""))))
			path := s.path(dirBlobs + "/sha256/" + digestOf(bad))
			if err := errors.Join(os.Remove(path), c.put(path), os.Remove(s.path(dirBlobs+"/sha256/"+digestOf(lost))),
				os.WriteFile(s.path(dirBlobs+"/sha256/stray"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			faults := must[[]Fault](t)(s.Repair(ctx))
			found := map[string]error{}
			for _, f := range faults {
				found[strings.TrimPrefix(f.Digest.String(), "sha256:")] = f.Err
			}
			if len(faults) != 3 || !errors.Is(found[digestOf(bad)], c.want) || !errors.Is(found[digestOf(lost)], ErrNotFound) || !errors.Is(found[""], ErrCorrupt) {
				t.Errorf("%+v", faults)
			}
			if got := names(t, s); !slices.Equal(got, []string{"docker.io/library/good:latest"}) {
				t.Error(got)
			}
			if _, err := s.GC(ctx); err != nil {
				t.Error(err)
			}
			if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
}

// Indexes that name the same again and again, on each level, are walked through once: 4,000 million times otherwise.
func TestRepeatedIndexes(t *testing.T) {
	ctx := context.Background()
	c := newCrosser(t)
	d := c.own
	for range maxNested {
		d = c.index(slices.Repeat([]ocispec.Descriptor{d}, 250)...)
	}
	const name = "docker.io/library/evil:latest"
	if err := c.s.putImages(ctx, Image{Name: name, Descriptor: d}); err != nil {
		t.Fatal(err)
	}
	if err := c.s.Remove(ctx, "own"); err != nil {
		t.Fatal(err)
	}
	m := must[*ocispec.Manifest](t)(c.s.manifest(c.own))
	if img := must[Image](t)(c.s.Get(ctx, m.Config.Digest.String())); img.Descriptor.Digest != c.own.Digest {
		t.Errorf("by the digest of its config: %+v", img)
	}
	var archive bytes.Buffer
	if err := c.s.Save(ctx, &archive, "evil"); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{})
	if got := must[[]Image](t)(s.Load(ctx, &archive, LoadOptions{})); len(got) != 1 || got[0].Descriptor.Digest != d.Digest {
		t.Errorf("loaded %+v", got)
	}
	if got := must[[]ocispec.Descriptor](t)(s.subjects(d, 0, map[mention]bool{})); len(got) != 1+maxNested {
		t.Errorf("referrers are asked for %d times", len(got))
	}
	srv := httptest.NewServer(&sink{})
	defer srv.Close()
	if err := s.Push(ctx, "evil", strings.TrimPrefix(srv.URL, "http://")+"/team/app:1", PushOptions{RegistryOptions: anonymous}); err != nil {
		t.Error(err)
	}
	if f, err := s.Verify(ctx); err != nil || len(f) > 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := s.GC(ctx); err != nil {
		t.Error(err)
	}
}
