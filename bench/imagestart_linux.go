package main

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// imageStarts measures what a container of an unpacked image takes more than one of a directory.
func imageStarts(top string) (r imageResult, err error) {
	began := loadAverage()
	sources, err := startSources(top)
	if err != nil {
		return r, err
	}
	for range 200 {
		for i := range sources {
			took, err := startOnce(sources[i].src)
			if err != nil {
				return r, err
			}
			sources[i].seconds = append(sources[i].seconds, took.Seconds())
		}
	}
	r = imageResult{Task: "start", About: "a container that ends at once, 200 samples", Load: began + " to " + loadAverage()}
	base := math.NaN()
	for i, s := range sources {
		slices.Sort(s.seconds)
		m := quantile(s.seconds, 0.5)
		r.Rows = append(r.Rows, imageSample{Tool: s.name, Kind: kindOwn, Median: m, Fastest: s.seconds[0]})
		if i == 0 {
			base = m
			continue
		}
		r.Ratios = append(r.Ratios, imageRatio{s.name + ", milliseconds more than a directory", (m - base) * 1000, "≤ 1.00"})
	}
	return r, nil
}

// startSource is a root filesystem and how long containers of it took.
type startSource struct {
	name    string
	src     rootfs.Source
	seconds []float64
}

// startSources are the same command in a directory, an image of four layers, and a snapshot of that.
func startSources(top string) ([]startSource, error) {
	ctx := context.Background()
	dir := top + "/root"
	if err := errors.Join(os.MkdirAll(dir+"/bin", 0o755), copyFile(dir+"/bin/true", "/bin/busybox")); err != nil {
		return nil, err
	}
	store, err := image.Open(top+"/store", image.Options{})
	if err != nil {
		return nil, err
	}
	layers := []image.Layer{image.DirLayer(image.Tree{Path: dir}, image.TreeOptions{})}
	for _, n := range []string{"1", "2", "3"} {
		more := top + "/more" + n
		if err := errors.Join(os.MkdirAll(more, 0o755), os.WriteFile(more+"/file"+n, []byte(n), 0o644)); err != nil {
			return nil, err
		}
		layers = append(layers, image.DirLayer(image.Tree{Path: more}, image.TreeOptions{}))
	}
	if _, err := store.Write(ctx, "small", image.ImageSpec{Layers: layers}); err != nil {
		return nil, err
	}
	sn, err := store.NewSnapshot(ctx, "kept", "small", image.SnapshotOptions{})
	if err != nil {
		return nil, err
	}
	sources := []startSource{{"a directory", rootfs.Dir(dir), nil}, {"an image", store.Rootfs("small"), nil}, {"a snapshot", sn.Rootfs(), nil}}
	if files := store.Rootfs("small").EROFS(); canStart(files) {
		sources = append(sources, startSource{"an image, its layers mounted from files of EROFS", files, nil})
	}
	return sources, nil
}

// canStart says that containers can have a root filesystem here.
func canStart(src rootfs.Source) bool {
	_, err := startOnce(src)
	return err == nil
}

// startOnce runs a container to its end.
func startOnce(src rootfs.Source) (time.Duration, error) {
	c, err := caisson.New(caisson.WithRootfs(src), caisson.WithCommand("/bin/true"))
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	err = c.Run(context.Background())
	took := time.Since(begin)
	return took, errors.Join(err, c.Close())
}
