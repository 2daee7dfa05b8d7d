package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/caisson-go/caisson/rootfs"
)

// lowers are the directories that a container of an image would get.
func lowers(t *testing.T, s *Store, name string) []string {
	t.Helper()
	d, err := s.Rootfs(name).Describe(context.Background(), describeEnv())
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, l := range d.Layers {
		dirs = append(dirs, l.Path)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return dirs
}

func describeEnv() rootfs.Env {
	return rootfs.Env{UserNamespace: os.Geteuid() != 0, Unprivileged: os.Geteuid() != 0}
}

// What is remembered of an image is what a first look tells, follows its name, and is forgotten with the files that said it.
func TestKnownImages(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "one", plain(layer(t, file("a", "1"))), plain(layer(t, file("b", "1"))))
	two := putImage(t, s, "two", plain(layer(t, file("a", "2"))))
	first := lowers(t, s, "one")
	if again := lowers(t, s, "one"); len(first) != 2 || !slices.Equal(first, again) || len(s.known.list) != 1 {
		t.Fatalf("first %q, then %q; %d images are known", first, again, len(s.known.list))
	}
	other := lowers(t, s, "two")
	if err := s.Tag(context.Background(), "two", "one"); err != nil {
		t.Fatal(err)
	}
	if now := lowers(t, s, "one"); len(other) != 1 || !slices.Equal(now, other) {
		t.Fatalf("the name leads to %q, not to %q", now, other)
	}
	info, err := s.Inspect(context.Background(), "two", nil)
	if err != nil {
		t.Fatal(err)
	}
	info.Config.DiffIDs[0] = "sha256:no"
	if now := lowers(t, s, "two"); !slices.Equal(now, other) {
		t.Fatalf("%q after a caller changed its answer", now)
	}
	for name, d := range map[string]string{"config": info.ID.Encoded(), "manifest": two.Descriptor.Digest.Encoded()} {
		path := s.path(dirBlobs + "/sha256/" + d)
		if err := os.Rename(path, path+"-away"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Rootfs("two").Describe(context.Background(), describeEnv()); !errors.Is(err, ErrNotFound) {
			t.Errorf("without its %s: %v", name, err)
		}
		if err := os.Rename(path+"-away", path); err != nil {
			t.Fatal(err)
		}
		if now := lowers(t, s, "two"); !slices.Equal(now, other) {
			t.Errorf("%q after the %s came back", now, name)
		}
	}
}

// A layer that is gone is made again, for an image that is known too.
func TestKnownLayers(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "one", plain(layer(t, file("a", "1"))), plain(layer(t, file("b/c", "1"))))
	dirs := lowers(t, s, "one")
	for _, d := range dirs {
		if err := removeTree(filepath.Dir(d)); err != nil {
			t.Fatal(err)
		}
		if again := lowers(t, s, "one"); !slices.Equal(again, dirs) {
			t.Fatalf("%q in place of %q", again, dirs)
		}
		if _, err := os.Stat(d); err != nil {
			t.Fatal(err)
		}
	}
}

// No more images are remembered than the bound says.
func TestKnownImagesBound(t *testing.T) {
	s := openStore(t, Options{})
	for i := range maxKnownImages + 2 {
		name := "n" + strconv.Itoa(i)
		putImage(t, s, name, plain(layer(t, file("a", name))))
		lowers(t, s, name)
	}
	if len(s.known.list) != maxKnownImages {
		t.Fatalf("%d images are remembered", len(s.known.list))
	}
}
