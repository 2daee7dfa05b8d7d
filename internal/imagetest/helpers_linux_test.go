package imagetest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

var warm sync.Once

// noLeaks looks for what a test leaves behind, besides what the host program keeps once it has been needed: the keeper, empty mount
// namespaces, user namespaces to map mounts with.
func noLeaks(t testing.TB) {
	t.Helper()
	warm.Do(func() {
		kinds := [][]caisson.Option{nil}
		if os.Geteuid() != 0 || testutil.IDMaps(t) {
			kinds = append(kinds, []caisson.Option{caisson.WithNamespace(namespaces.User, namespaces.New())})
		}
		if os.Geteuid() != 0 {
			kinds = append(kinds, []caisson.Option{caisson.WithIDMaps(namespaces.SingleIDMaps())})
		}
		for _, opts := range kinds {
			warmUp(t, opts)
		}
	})
	testutil.NoLeaks(t)
}

func warmUp(t testing.TB, opts []caisson.Option) {
	c, err := caisson.New(append(opts, caisson.WithRootfs(rootfs.Dir(testutil.Busybox(t))), caisson.WithCommand("/bin/sh", "-c", "mkdir -m 0 /closed"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := image.Export(testContext(t), io.Discard, c, image.TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func gunzip(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// start starts a container and waits for a file of it.
func start(ctx context.Context, c *caisson.Container, file string) error {
	if _, err := c.Start(ctx); err != nil {
		return err
	}
	root, err := c.Root()
	if err != nil {
		return err
	}
	defer root.Close()
	for ctx.Err() == nil {
		if data, err := root.ReadFile(file, 100); err == nil && len(data) > 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the container does not begin")
}

func overlay(dirs []string) caisson.Option { return caisson.WithRootfs(rootfs.Overlay(dirs...)) }
