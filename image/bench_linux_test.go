package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/caisson-go/caisson/rootfs"
)

// benchLayout names an OCI layout with one real image, such as umoci or skopeo make.
const benchLayout = "CAISSON_BENCH_LAYOUT"

func benchStore(b *testing.B) (*Store, string) {
	dir := os.Getenv(benchLayout)
	if dir == "" {
		b.Skip(benchLayout + " names no layout")
	}
	s := openStore(b, Options{})
	images, err := s.LoadLayout(context.Background(), dir, LoadOptions{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	return s, images[0].Name
}

// What it takes to unpack all layers of an image into an empty store.
func BenchmarkUnpack(b *testing.B) {
	s, name := benchStore(b)
	for b.Loop() {
		b.StopTimer()
		old, _ := filepath.Glob(s.path(dirLayers + "/*"))
		for _, l := range old {
			removeTree(l)
		}
		b.StartTimer()
		if _, err := s.Unpack(context.Background(), name, UnpackOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// What an image that is unpacked adds to the start of a container.
func BenchmarkDescribe(b *testing.B) {
	s, name := benchStore(b)
	if _, err := s.Unpack(context.Background(), name, UnpackOptions{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d, err := s.Rootfs(name).Describe(context.Background(), rootfs.Env{})
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
