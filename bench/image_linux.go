package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// Flags of the command image.
var (
	imageDirs   = flag.String("image-layers", "/usr/lib/gcc+/usr/include+/usr/share,/usr/local/go,/usr/lib/x86_64-linux-gnu,/usr/bin+/usr/sbin", "image: the layers, comma-separated, each of directories joined by +")
	imageDir    = flag.String("image-dir", "/dev/shm", "image: where images are unpacked, with room for four times the image")
	imageRounds = flag.Int("image-rounds", 3, "image: samples of each tool")
	imageKeep   = flag.String("image-keep", "", "image: a directory in which the images are kept for the next time")
	imageKinds  = flag.String("image-kinds", "gzip,zstd,single,small", "image: which images")
)

// imageLayout is an OCI layout of our making.
type imageLayout struct {
	dir        string
	Comp       string
	Layers     []string // paths of blobs, the lowest first
	Tar, Blobs int64
	Entries    int
}

// imageEngine unpacks a layout into an empty directory.
type imageEngine struct {
	name, about string
	needs       []string
	commands    func(l *imageLayout, scratch string) [][]string
}

var imageEngines = []imageEngine{
	{"caisson", "Store.Unpack in a process of its own, blobs in the store", nil, nil},
	{"decompressor | tar", "pigz or zstd piped into tar -x, one layer after another: the bound, no peer", []string{"pigz", "zstd", "tar"}, func(l *imageLayout, scratch string) [][]string {
		dec := map[string]string{"gzip": "pigz -dc", "zstd": "zstd -qdc"}[l.Comp]
		script := "set -e -o pipefail\n"
		for _, b := range l.Layers {
			script += fmt.Sprintf("%s <%s | tar -x --xattrs -C %s -f -\n", dec, b, scratch)
		}
		return [][]string{{"bash", "-c", script}}
	}},
	{"umoci", "umoci unpack", []string{"umoci"}, func(l *imageLayout, scratch string) [][]string {
		return [][]string{{"umoci", "unpack", "--image", l.dir + ":bench", scratch + "/bundle"}}
	}},
	{"skopeo + umoci", "skopeo copy into a layout, umoci unpack", []string{"skopeo", "umoci"}, func(l *imageLayout, scratch string) [][]string {
		return [][]string{{"skopeo", "--insecure-policy", "copy", "-q", "oci:" + l.dir + ":bench", "oci:" + scratch + "/layout:bench"},
			{"umoci", "unpack", "--image", scratch + "/layout:bench", scratch + "/bundle"}}
	}},
	{"podman load", "podman pull of the layout into a store of its own", []string{"podman"}, func(l *imageLayout, scratch string) [][]string {
		return [][]string{{"podman", "--root", scratch + "/root", "--runroot", scratch + "/run", "--storage-driver", "overlay", "pull", "-q", "oci:" + l.dir + ":bench"}}
	}},
	{"ctr", "ctr image import with a containerd of its own, which unpacks", []string{"containerd", "ctr"}, func(l *imageLayout, scratch string) [][]string {
		script := fmt.Sprintf(`set -e
printf 'version = 2\nroot = "%[1]s/root"\nstate = "%[1]s/state"\n[grpc]\naddress = "%[1]s/s"\n' >%[1]s/c.toml
containerd -c %[1]s/c.toml -l fatal & p=$!
trap 'kill $p; wait $p || :' EXIT
until ctr -a %[1]s/s version >/dev/null 2>&1; do sleep 0.05; done
tar -C %[2]s -c . | ctr -a %[1]s/s image import --snapshotter overlayfs --base-name bench - >/dev/null`, scratch, l.dir)
		return [][]string{{"bash", "-c", script}}
	}},
}

// images is the command image.
func images(w *workspace) error {
	top, err := os.MkdirTemp(*imageDir, "caisson-bench-")
	if err != nil {
		return err
	}
	w.undo = append(w.undo, func() error { return os.RemoveAll(top) })
	keep := top
	if *imageKeep != "" {
		keep = *imageKeep
	}
	var dirs [][]string
	var all []string
	for _, l := range strings.Split(*imageDirs, ",") {
		dirs = append(dirs, strings.Split(l, "+"))
		all = append(all, strings.Split(l, "+")...)
	}
	for _, kind := range strings.Split(*imageKinds, ",") {
		layers, comp := dirs, kind
		switch kind {
		case "single":
			layers, comp = [][]string{all}, "gzip"
		case "small":
			layers, comp = smallLayers("/usr/include", 128), "gzip"
		}
		l, err := keptLayout(filepath.Join(keep, kind), comp, layers)
		if err != nil {
			return err
		}
		fmt.Printf("\n%s: %d layers, %d entries, %d MB of tar, %d MB of blobs, %d samples each, median (fastest), peak memory\n\n", kind, len(l.Layers), l.Entries, l.Tar>>20, l.Blobs>>20, *imageRounds)
		if err := compareImages(l, filepath.Join(top, "scratch")); err != nil {
			return err
		}
		if *imageKeep == "" {
			if err := os.RemoveAll(l.dir); err != nil {
				return err
			}
		}
	}
	return imageStarts(top)
}

// keptLayout finds a layout that was made before, or makes it.
func keptLayout(dir, comp string, layers [][]string) (*imageLayout, error) {
	l := &imageLayout{dir: dir}
	data, err := os.ReadFile(dir + "/bench.json")
	if err == nil {
		return l, json.Unmarshal(data, l)
	}
	if l, err = makeLayout(dir, comp, layers); err != nil {
		return nil, err
	}
	if data, err = json.Marshal(l); err != nil {
		return nil, err
	}
	return l, os.WriteFile(dir+"/bench.json", data, 0o644)
}

// smallLayers deals the files of a directory to n layers.
func smallLayers(dir string, n int) [][]string {
	layers := make([][]string, n)
	i := 0
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && i < 40*n {
			layers[i%n] = append(layers[i%n], p)
			i++
		}
		return nil
	})
	return layers
}

// makeLayout makes an OCI layout with the tag bench.
func makeLayout(dir, comp string, layers [][]string) (*imageLayout, error) {
	l := &imageLayout{dir: dir, Comp: comp}
	if err := os.MkdirAll(dir+"/blobs/sha256", 0o755); err != nil {
		return nil, err
	}
	type desc struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	put := func(mediaType string, v any) (desc, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return desc{}, err
		}
		sum := sha256.Sum256(data)
		return desc{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))},
			os.WriteFile(dir+"/blobs/sha256/"+hex.EncodeToString(sum[:]), data, 0o644)
	}
	const oci = "application/vnd.oci.image."
	var list []desc
	var ids []string
	for _, files := range layers {
		id, sum, size, err := l.layer(files)
		if err != nil {
			return nil, err
		}
		list = append(list, desc{MediaType: oci + "layer.v1.tar+" + comp, Digest: "sha256:" + sum, Size: size})
		ids = append(ids, "sha256:"+id)
		l.Layers = append(l.Layers, dir+"/blobs/sha256/"+sum)
		l.Blobs += size
	}
	config, err := put(oci+"config.v1+json", map[string]any{"architecture": image.LocalPlatform().Architecture, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	if err != nil {
		return nil, err
	}
	m, err := put(oci+"manifest.v1+json", map[string]any{"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config, "layers": list})
	if err != nil {
		return nil, err
	}
	m.Annotations = map[string]string{"org.opencontainers.image.ref.name": "bench"}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []desc{m}})
	if err != nil {
		return nil, err
	}
	return l, errors.Join(os.WriteFile(dir+"/index.json", index, 0o644), os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// layer packs files into a blob and returns the digests of the archive and of the blob.
func (l *imageLayout) layer(files []string) (id, sum string, size int64, err error) {
	program := map[string][]string{"gzip": {"pigz", "-6", "-c"}, "zstd": {"zstd", "-q", "-3", "-c"}}[l.Comp]
	if program == nil {
		return "", "", 0, fmt.Errorf("no compression %q", l.Comp)
	}
	path := l.dir + "/blob"
	out, err := os.Create(path)
	if err != nil {
		return "", "", 0, err
	}
	defer out.Close()
	whole, packed := sha256.New(), sha256.New()
	cmd := exec.Command(program[0], program[1:]...)
	count := &countWriter{w: io.MultiWriter(out, packed)}
	cmd.Stdout, cmd.Stderr = count, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", "", 0, err
	}
	plain := &countWriter{w: io.MultiWriter(in, whole)}
	err = l.pack(tar.NewWriter(plain), files)
	if err := errors.Join(err, in.Close(), cmd.Wait()); err != nil {
		return "", "", 0, err
	}
	l.Tar += plain.n
	sum = hex.EncodeToString(packed.Sum(nil))
	return hex.EncodeToString(whole.Sum(nil)), sum, count.n, os.Rename(path, l.dir+"/blobs/sha256/"+sum)
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

// pack writes directories, regular files and links; what else there is is left out.
func (l *imageLayout) pack(w *tar.Writer, files []string) error {
	for _, top := range files {
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil || fi.Mode()&^(fs.ModePerm|fs.ModeDir|fs.ModeSymlink|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
				return err
			}
			to := ""
			if fi.Mode()&fs.ModeSymlink != 0 {
				if to, err = os.Readlink(p); err != nil {
					return err
				}
			}
			h, err := tar.FileInfoHeader(fi, to)
			if err != nil {
				return err
			}
			h.Name, h.Format = strings.TrimPrefix(p, "/"), tar.FormatPAX
			l.Entries++
			if err := w.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
				return err
			}
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(w, io.LimitReader(f, fi.Size()))
			return err
		})
		if err != nil {
			return err
		}
	}
	return w.Close()
}

// compareImages takes turns, so that what else goes on meets all alike.
func compareImages(l *imageLayout, scratch string) error {
	store, err := image.Open(scratch+"-store", image.Options{})
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch + "-store")
	if _, err := store.LoadLayout(context.Background(), l.dir, image.LoadOptions{Name: "bench"}); err != nil {
		return err
	}
	times, peaks, faults := map[string][]float64{}, map[string]int64{}, map[string]error{}
	for range *imageRounds {
		for _, e := range imageEngines {
			if faults[e.name] != nil || !wantedTool(e.name) {
				continue
			}
			took, peak, err := e.sample(l, scratch, store.Dir())
			if err != nil {
				faults[e.name] = err
				continue
			}
			fmt.Fprintf(os.Stderr, "%s %s %.2f s\n", filepath.Base(l.dir), e.name, took.Seconds())
			times[e.name], peaks[e.name] = append(times[e.name], took.Seconds()), max(peaks[e.name], peak)
		}
	}
	median := func(name string) float64 {
		s := slices.Sorted(slices.Values(times[name]))
		if len(s) == 0 {
			return 0
		}
		return s[len(s)/2]
	}
	fmt.Println("| tool | seconds | × caisson | peak MB | |\n|---|---|---|---|---|")
	for _, e := range imageEngines {
		if !wantedTool(e.name) {
			continue
		}
		if err := faults[e.name]; err != nil {
			fmt.Printf("| %s | | | | not measured: %v |\n", e.name, err)
			continue
		}
		fmt.Printf("| %s | %.2f (%.2f) | %.2f | %d | %s |\n", e.name, median(e.name), slices.Min(times[e.name]), median(e.name)/median("caisson"), peaks[e.name]>>20, e.about)
	}
	return nil
}

func wantedTool(name string) bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), name)
}

// sample runs a tool once. The peak is that of its largest process.
func (e *imageEngine) sample(l *imageLayout, scratch, store string) (took time.Duration, peak int64, err error) {
	for _, n := range e.needs {
		if _, err := exec.LookPath(n); err != nil {
			return 0, 0, err
		}
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(scratch)
	var commands [][]string
	if e.commands == nil {
		if err := clearLayers(store); err != nil {
			return 0, 0, err
		}
		commands = [][]string{{"/proc/self/exe", unpackCommand, store}}
	} else {
		commands = e.commands(l, scratch)
	}
	begin := time.Now()
	for _, c := range commands {
		cmd := exec.Command(c[0], c[1:]...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, 0, fmt.Errorf("%v: %s", err, strings.ReplaceAll(strings.TrimSpace(string(out[max(0, len(out)-200):])), "\n", " "))
		}
		if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			peak = max(peak, ru.Maxrss<<10)
		}
	}
	return time.Since(begin), peak, nil
}

// unpackCommand is the program that is measured.
const unpackCommand = "image-unpack"

func unpackOnly(dir string) error {
	s, err := image.Open(dir, image.Options{})
	if err != nil {
		return err
	}
	_, err = s.Unpack(context.Background(), "bench", image.UnpackOptions{})
	return err
}

// clearLayers makes a store forget what it unpacked.
func clearLayers(store string) error {
	layers, err := filepath.Glob(store + "/layers/*")
	for _, l := range layers {
		err = errors.Join(err, os.RemoveAll(l))
	}
	return err
}

// imageStarts measures what a container of an unpacked image takes more than one of a directory.
func imageStarts(top string) error {
	ctx := context.Background()
	dir := top + "/root"
	if err := errors.Join(os.MkdirAll(dir+"/bin", 0o755), copyFile(dir+"/bin/true", "/bin/busybox")); err != nil {
		return err
	}
	store, err := image.Open(top+"/store", image.Options{})
	if err != nil {
		return err
	}
	for _, n := range []string{"0", "1", "2", "3"} {
		if err := os.WriteFile(dir+"/file"+n, []byte(n), 0o644); err != nil {
			return err
		}
	}
	var layers []image.Layer
	for range 4 {
		layers = append(layers, image.DirLayer(image.Tree{Path: dir}, image.TreeOptions{}))
	}
	if _, err := store.Write(ctx, "small", image.ImageSpec{Layers: layers}); err != nil {
		return err
	}
	sn, err := store.NewSnapshot(ctx, "kept", "small", image.SnapshotOptions{})
	if err != nil {
		return err
	}
	sources := []struct {
		name string
		src  rootfs.Source
	}{{"a directory", rootfs.Dir(dir)}, {"an image", store.Rootfs("small")}, {"a snapshot", sn.Rootfs()}}
	times := make([][]float64, len(sources))
	for range 200 {
		for i, s := range sources {
			c, err := caisson.New(caisson.WithRootfs(s.src), caisson.WithCommand("/bin/true"))
			if err != nil {
				return err
			}
			begin := time.Now()
			err = c.Run(ctx)
			times[i] = append(times[i], time.Since(begin).Seconds()*1000)
			if err := errors.Join(err, c.Close()); err != nil {
				return err
			}
		}
	}
	fmt.Print("\nA container that ends at once, 200 samples each:\n\n| root filesystem | median ms | more than a directory |\n|---|---|---|\n")
	base := 0.0
	for i, s := range sources {
		slices.Sort(times[i])
		m := times[i][len(times[i])/2]
		if i == 0 {
			base = m
		}
		fmt.Printf("| %s | %.2f | %.2f |\n", s.name, m, m-base)
	}
	return nil
}
