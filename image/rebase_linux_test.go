package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// grown makes an image of three layers, each of which changes the tree of the one before by chance.
func grown(t *testing.T, s *Store, seed uint64) {
	t.Helper()
	w := &wild{t: t, r: rand.New(rand.NewPCG(seed, 2)), own: os.Geteuid() == 0}
	var o TreeOptions
	if !w.own {
		o.Owner = func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
	}
	before := t.TempDir()
	var layers []Layer
	var data [][]byte
	for range 3 {
		now := t.TempDir()
		if len(data) > 0 {
			extractInto(t, now, nil, data...)
		}
		w.root = now
		for range 40 {
			w.step()
		}
		data = append(data, archiveOf(t, DiffLayer([]Tree{{Path: before}}, Tree{Path: now}, o)))
		layers = append(layers, TarLayer(bytes.NewReader(data[len(data)-1])).History(ocispec.History{CreatedBy: "step"}), NoLayer(ocispec.History{CreatedBy: "then"}))
		before = now
	}
	if _, err := s.Write(context.Background(), "grown", ImageSpec{Layers: layers}); err != nil {
		t.Fatal(err)
	}
}

// A squashed image has the files of the one it was made of, in one directory and as a stack.
func TestSquash(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(6) {
		s := openStore(t, Options{})
		grown(t, s, seed)
		want := t.TempDir()
		if _, err := s.Extract(ctx, "grown", want, UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
		for keep := range 4 {
			img, err := s.Squash(ctx, "squashed", SquashOptions{Image: "grown", Keep: keep, Created: &at})
			if err != nil {
				t.Fatal(seed, keep, err)
			}
			if again, err := s.Squash(ctx, "again", SquashOptions{Image: "grown", Keep: keep, Created: &at}); err != nil || again.Descriptor.Digest != img.Descriptor.Digest {
				t.Errorf("%v, %v", again, err)
			}
			info, err := s.Inspect(ctx, "squashed", nil)
			if err != nil || len(info.Layers) != min(keep+1, 3) {
				t.Fatalf("%+v, %v", info, err)
			}
			got := t.TempDir()
			if _, err := s.Extract(ctx, "squashed", got, UnpackOptions{}); err != nil {
				t.Fatal(err)
			}
			if a, b := treeText(t, want), treeText(t, got); unlinked(a) != unlinked(b) {
				t.Fatalf("seed %d, keep %d:\n%s\nbecomes\n%s", seed, keep, a, b)
			}
			u, err := s.Unpack(ctx, "squashed", UnpackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var lower []Tree
			for _, d := range u.Dirs {
				lower = append(lower, Tree{Path: d})
			}
			diff := DiffLayer(lower, Tree{Path: got}, TreeOptions{Contents: true})
			if hs := headers(t, archiveOf(t, diff)); len(hs) > 1 || len(hs) == 1 && hs[0].Name != "./" {
				t.Errorf("seed %d, keep %d: as a stack it differs: %v", seed, keep, archiveNames(t, archiveOf(t, diff)))
			}
		}
	}
}

// What headers take in memory is bounded, with all that is in them.
func TestSquashHeaders(t *testing.T) {
	attribute := func(h *tar.Header) {
		h.PAXRecords = map[string]string{xattrRecord + "user.x": strings.Repeat("x", 40_000)}
	}
	for name, c := range map[string]struct {
		layer []byte
		fits  bool
	}{
		"few":        {layer(t, dir("d"), file("d/f", "x")), true},
		"many":       {layer(t, slices.Repeat([]ent{file("f", "")}, 80)...), false},
		"long":       {layer(t, file(strings.Repeat("d/", 2000)+"f", "").with(attribute)), false},
		"attributes": {layer(t, file("f", "").with(attribute)), false},
	} {
		s := openStore(t, Options{Limits: Limits{Headers: 40_000}})
		putImage(t, s, "a", plain(c.layer))
		_, err := s.Squash(context.Background(), "b", SquashOptions{Image: "a"})
		var le *LimitError
		if c.fits != (err == nil) || err != nil && (!errors.As(err, &le) || le.Limit != "Headers" || le.Max != 40_000 || le.Need <= 40_000) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.TempDir()+"/s", Options{Limits: Limits{Headers: -1}}); !errors.Is(err, errInvalid) {
		t.Error(err)
	}
}

// So is the table of files with several names, by what it may take of the memory.
func TestLinkTable(t *testing.T) {
	p := &packer{packing: packing{limits: Limits{Memory: minMemory}}, links: map[[2]uint64]string{}}
	long, err, n := strings.Repeat("x", 1000), error(nil), uint64(0)
	for ; err == nil && n < 1e5; n++ {
		_, err = p.linked(1, n, long)
	}
	var le *LimitError
	if n != minMemory/3*2/1064+1 || !errors.As(err, &le) || le.Limit != "Memory" || le.Max != minMemory || le.Need <= le.Max {
		t.Errorf("%d files: %v", n, err)
	}
}

// The lines of the old base go with it, those behind its last layer too, where the image has them as they are.
func TestRebaseHistory(t *testing.T) {
	ctx := context.Background()
	line := func(by string) Layer { return NoLayer(ocispec.History{CreatedBy: by}) }
	step := func(name string) Layer {
		return TarLayer(bytes.NewReader(layer(t, file(name, name)))).History(ocispec.History{CreatedBy: name})
	}
	s := openStore(t, Options{})
	for name, c := range map[string]ImageSpec{
		"old": {Layers: []Layer{line("old arg"), step("old"), line("old env"), line("old cmd")}},
		"new": {Layers: []Layer{step("new"), line("new cmd")}},
		// The same layers, by other lines.
		"copied": {Layers: []Layer{step("old"), line("other cmd")}},
	} {
		c.Created = &at
		must[Image](t)(s.Write(ctx, name, c))
	}
	must[Image](t)(s.Write(ctx, "app", ImageSpec{Base: "old", Created: &at, Layers: []Layer{line("arg"), step("app"), line("env")}}))
	must[Image](t)(s.Write(ctx, "bare", ImageSpec{Base: "old", Created: &at, Layers: []Layer{line("env")}}))
	for _, c := range []struct{ image, from, want string }{
		{"app", "old", "new, new cmd, arg, app, env"},
		{"bare", "old", "new, new cmd, env"},
		{"app", "copied", "new, new cmd, old env, old cmd, arg, app, env"}, // nobody can tell
		{"old", "old", "new, new cmd"},
	} {
		must[Image](t)(s.Rebase(ctx, "moved", RebaseOptions{Image: c.image, From: c.from, To: "new", Created: &at}))
		var got []string
		for _, h := range must[*Info](t)(s.Inspect(ctx, "moved", nil)).Config.Spec.History {
			got = append(got, h.CreatedBy)
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s from %s: %s, want %s", c.image, c.from, text, c.want)
		}
	}
}

func TestRebase(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "old", plain(layer(t, file("base", "old"))))
	putImage(t, s, "new", plain(layer(t, file("base", "new"))), plain(layer(t, file("more", "new"))))
	if _, err := s.Write(ctx, "app", ImageSpec{Base: "old", Layers: []Layer{TarLayer(bytes.NewReader(layer(t, file("app", "1")))).History(ocispec.History{CreatedBy: "app"}),
		NoLayer(ocispec.History{CreatedBy: "env"})}, Edit: func(c *Settings) error { c.SetEnv("A", "b"); return nil }}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rebase(ctx, "moved", RebaseOptions{Image: "app", From: "old", To: "new"}); err != nil {
		t.Fatal(err)
	}
	info, err := s.Inspect(ctx, "moved", nil)
	if err != nil || len(info.Layers) != 3 || info.Config.Env[0] != "A=b" {
		t.Fatalf("%+v, %v", info, err)
	}
	if h := info.Config.Spec.History; len(h) != 4 || h[2].CreatedBy != "app" || h[3].CreatedBy != "env" {
		t.Errorf("%+v", h)
	}
	to := t.TempDir()
	if _, err := s.Extract(ctx, "moved", to, UnpackOptions{}); err != nil || string(must[[]byte](t)(os.ReadFile(to+"/base"))) != "new" {
		t.Error(err)
	}
	if _, err := s.Rebase(ctx, "moved", RebaseOptions{Image: "app", From: "new", To: "old"}); !errors.Is(err, ErrBase) {
		t.Error(err)
	}
	if _, err := s.Rebase(ctx, "moved", RebaseOptions{Image: "app", From: "old"}); !errors.Is(err, errInvalid) {
		t.Error(err)
	}
}
