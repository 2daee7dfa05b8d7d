package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// useImage finds the image, loads it first if it comes from a file, and lets it say what the command line leaves open.
func (c *config) useImage(ctx context.Context) error {
	dir := c.store
	if dir == "" {
		var err error
		if dir, err = image.DefaultDir(); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(dir) // another program may ask for it later, from elsewhere
	if err != nil {
		return err
	}
	store, err := image.Open(dir, image.Options{})
	if err != nil {
		return err
	}
	name, err := load(ctx, store, c.image)
	if err != nil {
		return err
	}
	info, err := store.Inspect(ctx, name, nil)
	if err != nil {
		return err
	}
	p := info.Config.Process(image.Overrides{Args: c.command, Env: c.environment(), User: c.user, Dir: c.workdir})
	if len(p.Args) == 0 {
		return fmt.Errorf("%s names no command: give one", c.image)
	}
	if err := c.network.expose(info.Config.ExposedPorts); err != nil {
		return err
	}
	if err := c.supervision.fromImage(info.Config); err != nil {
		return err
	}
	c.command, c.env, c.user, c.workdir = p.Args, p.Env, p.User, p.Dir
	c.store, c.found = dir, name
	c.source = c.imageSource(store)
	c.more = []caisson.Option{caisson.WithStopSignal(syscall.Signal(p.StopSignal))}
	if c.detach {
		c.more = append(c.more, caisson.WithLabels(map[string]string{labelStore: dir}))
	}
	if p.Dir != "/" { // Docker makes the working directory where the image has none
		c.more = append(c.more, caisson.WithFiles(rootfs.File{Path: p.Dir, Dir: true, Mode: 0o755}))
	}
	return c.useVolumes(ctx, store, info.Config.Volumes)
}

// labelStore is the label of a detached container that says where its image is.
const labelStore = "run.store"

// imageSource is the root filesystem. A detached container outlives this program, and so must its layers.
func (c *config) imageSource(store *image.Store) rootfs.Source {
	src := store.Rootfs(c.found)
	if c.disk != 0 {
		src = src.UpperSize(int64(c.disk))
	}
	if c.detach {
		src = src.Lease(c.id)
	}
	return src
}

// imageHanded says that the process that stays for the container makes its root filesystem, anew with each start.
func (c *config) imageHanded() bool { return c.image != "" && c.detach && c.supervision.again() }

// imageArguments hand the image to that process, where imageOption reads them.
func (c *config) imageArguments() []string {
	return []string{"-store", c.store, "-image", c.found, "-id", c.id, "-disk", c.disk.String()}
}

// imageOption is the root filesystem of a container that this program stays for.
func (c *config) imageOption() ([]caisson.Option, error) {
	if c.found == "" {
		return nil, nil
	}
	store, err := image.Open(c.store, image.Options{})
	if err != nil {
		return nil, err
	}
	c.detach = true
	return []caisson.Option{caisson.WithRootfs(c.imageSource(store))}, nil
}

// forget gives back what a detached container that is gone had of its image.
func forget(ctx context.Context, id string, labels map[string]string) error {
	if labels[labelStore] == "" {
		return nil
	}
	if dir := labels[labelVolumes]; dir != "" {
		if err := removeVolumes(dir); err != nil {
			return err
		}
	}
	store, err := image.Open(labels[labelStore], image.Options{})
	if err != nil {
		return err
	}
	if err = store.DropLease(ctx, id); errors.Is(err, image.ErrNotFound) {
		err = nil // it was never started
	}
	return errors.Join(err, store.Close())
}

// show tells of each blob that has come.
func show(p image.Progress) {
	if p.Done == p.Total && !p.Cached {
		fmt.Fprintf(os.Stderr, "%.19s %d bytes\n", p.Digest, p.Total)
	}
}

// load brings an image from a file or a registry into the store, and returns the name under which it is there.
func load(ctx context.Context, store *image.Store, from string) (string, error) {
	kind, path, _ := strings.Cut(from, ":")
	var images []image.Image
	var err error
	switch kind {
	case "layout":
		images, err = store.LoadLayout(ctx, path, image.LoadOptions{})
	case "archive":
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if images, err = store.Load(ctx, f, image.LoadOptions{}); err != nil {
			return "", err
		}
	default:
		if _, err := store.Get(ctx, from); errors.Is(err, image.ErrNotFound) && !strings.HasPrefix(from, "sha256:") {
			if _, err := store.Pull(ctx, from, image.PullOptions{Progress: show}); err != nil {
				return "", err
			}
		} else if err != nil {
			return "", err
		}
		return from, nil
	}
	if err != nil {
		return "", err
	}
	first := images[0]
	for _, img := range images {
		if img.Descriptor.Digest != first.Descriptor.Digest {
			return "", fmt.Errorf("%s holds several images, which are in the store now; run one by its name", path)
		}
	}
	if first.Name == "" {
		return first.Descriptor.Digest.String(), nil
	}
	return first.Name, nil
}
