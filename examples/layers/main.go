// Command layers shows what an image is: documents and archives, each named by its content; how a container's changes become a layer,
// deletions included; and that layers are on disk once, however many containers see them.
//
//	go run ./examples/layers
//
// Nothing is downloaded: the image is made here, and its containers borrow the host's programs. It needs Linux 5.14 and no privilege.
package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing/fstest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "caisson-layers-")
	if err != nil {
		log.Fatal(err)
	}
	err = lesson(context.Background(), filepath.Join(dir, "store"))
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		log.Fatal(err)
	}
}

// day is the time of everything here, so that all of it has the same digests each time.
var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func lesson(ctx context.Context, dir string) error {
	store, err := image.Open(dir, image.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	for i, step := range []struct {
		title string
		do    func(context.Context, *image.Store) error
	}{
		{"An image is a few documents and archives, each named by the digest of its content.", makeImage},
		{"A container changes files. What is different afterwards is a layer; a deletion is an entry too.", change},
		{"Unpacked, each layer is a directory. The deletion is now a character device 0, 0, which overlayfs takes for \"nothing is here\".", unpacked},
		{"Two containers of two images: the layer below is the same directory for both, and neither sees what the other writes.", share},
	} {
		fmt.Printf("%d. %s\n", i+1, step.title)
		if err := step.do(ctx, store); err != nil {
			return err
		}
	}
	return nil
}

// makeImage makes an image of one layer.
func makeImage(ctx context.Context, store *image.Store) error {
	files := fstest.MapFS{
		"etc":          {Mode: fs.ModeDir | 0o755, ModTime: day},
		"data":         {Mode: fs.ModeDir | 0o755, ModTime: day},
		"etc/greeting": {Data: []byte("hello\n"), Mode: 0o644, ModTime: day},
		"etc/secret":   {Data: []byte("do not tell\n"), Mode: 0o600, ModTime: day},
		"data/old":     {Data: []byte("old\n"), Mode: 0o644, ModTime: day},
	}
	for _, name := range programs { // the host's programs are mounted on these
		files[name] = &fstest.MapFile{Mode: fs.ModeDir | 0o755, ModTime: day}
		if to, err := os.Readlink("/" + name); err == nil {
			files[name] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink, ModTime: day}
		}
	}
	img, err := store.Write(ctx, "first", image.ImageSpec{
		Layers:  []image.Layer{image.FSLayer(files, image.FSOptions{Latest: day}).History(ocispec.History{CreatedBy: "files of this program"})},
		Edit:    func(s *image.Settings) error { s.Cmd = []string{"/bin/sh"}; return nil },
		Created: &day,
	})
	if err != nil {
		return err
	}
	info, err := store.Inspect(ctx, "first", nil)
	if err != nil {
		return err
	}
	fmt.Printf("   manifest %.19s  names the config and the layers\n", img.Descriptor.Digest)
	fmt.Printf("   config   %.19s  says what runs: %v\n", info.ID, info.Config.Cmd)
	fmt.Printf("   layer    %.19s  is an archive with:\n", info.Layers[0].Digest)
	return entries(store, info.Layers[0])
}

// change runs a container, commits it, and shows the new layer.
func change(ctx context.Context, store *image.Store) error {
	c, err := container(store, "first", "echo changed >/etc/greeting; rm /etc/secret; rm -r /data; mkdir /data; echo new >/data/new")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Run(ctx); err != nil {
		return err
	}
	if _, err := store.Commit(ctx, "second", c, image.CommitOptions{Created: &day}); err != nil {
		return err
	}
	info, err := store.Inspect(ctx, "second", nil)
	if err != nil {
		return err
	}
	fmt.Printf("   the lowest layer is the one of before: %.19s\n   the new layer has:\n", info.Layers[0].Digest)
	return entries(store, info.Layers[1])
}

// unpacked shows the directories that overlayfs lays over one another.
func unpacked(ctx context.Context, store *image.Store) error {
	u, err := store.Unpack(ctx, "second", image.UnpackOptions{})
	if err != nil {
		return err
	}
	for i, dir := range u.Dirs {
		fi, err := os.Lstat(filepath.Join(dir, "etc/secret"))
		if err != nil {
			return err
		}
		what := fmt.Sprintf("a file of %d bytes", fi.Size())
		if st := fi.Sys().(*syscall.Stat_t); fi.Mode()&fs.ModeCharDevice != 0 {
			what = fmt.Sprintf("a character device %d, %d", st.Rdev>>8, st.Rdev&0xff)
		}
		fmt.Printf("   layer %d: etc/secret is %s\n", len(u.Dirs)-i, what)
	}
	return nil
}

// share runs containers of both images.
func share(ctx context.Context, store *image.Store) error {
	var stacks [2][]string
	for i, name := range []string{"first", "second"} {
		u, err := store.Unpack(ctx, name, image.UnpackOptions{})
		if err != nil {
			return err
		}
		stacks[i] = u.Dirs
	}
	shared := stacks[0][0]
	fmt.Printf("   the layer of \"first\" is in the stack of \"second\": %v\n", slices.Contains(stacks[1], shared))
	for _, name := range []string{"first", "second"} {
		c, err := container(store, name, "cat /etc/greeting; echo $0 >/etc/greeting; ls -A /etc")
		if err != nil {
			return err
		}
		out, err := c.Output(ctx)
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
		fmt.Printf("   %-8s sees %v\n", name, strings.Fields(string(out)))
	}
	data, err := os.ReadFile(filepath.Join(shared, "etc/greeting"))
	fmt.Printf("   afterwards the layer still says: %s", data)
	return err
}

// programs are where the host's programs are. What is a directory there is mounted; what is a link is one in the image.
var programs = []string{"bin", "sbin", "lib", "lib64", "usr"}

// container is a shell in an image.
func container(store *image.Store, name, script string) (*caisson.Container, error) {
	opts := []caisson.Option{caisson.WithRootfs(store.Rootfs(name)), caisson.WithCommand("/bin/sh", "-c", script, "a container of "+name)}
	for _, p := range programs {
		if fi, err := os.Lstat("/" + p); err == nil && fi.IsDir() {
			opts = append(opts, caisson.WithMount(rootfs.ReadOnlyBindMount("/"+p, "/"+p)))
		}
	}
	return caisson.New(opts...)
}

// entries prints what is in a layer.
func entries(store *image.Store, layer ocispec.Descriptor) error {
	f, err := os.Open(filepath.Join(store.Dir(), "blobs", layer.Digest.Algorithm().String(), layer.Digest.Encoded()))
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if slices.Contains(programs, strings.TrimSuffix(h.Name, "/")) {
			continue
		}
		note := ""
		if base := filepath.Base(h.Name); strings.HasPrefix(base, ".wh.") {
			note = "  (a whiteout: " + strings.TrimPrefix(base, ".wh.") + " is deleted)"
		}
		fmt.Printf("      %v %s%s\n", h.FileInfo().Mode(), h.Name, note)
	}
}
