package main

import (
	"archive/tar"
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
	"strings"

	"github.com/caisson-go/caisson/image"
)

// Flags of the command image.
var (
	imageDirs   = flag.String("image-layers", "/usr/lib/gcc+/usr/include+/usr/share,/usr/local/go,/usr/lib/x86_64-linux-gnu,/usr/bin+/usr/sbin", "image: the layers, comma-separated, each of directories joined by +")
	imageDir    = flag.String("image-dir", "/dev/shm", "image: where images are unpacked, with room for four times the image")
	imageRounds = flag.Int("image-rounds", 3, "image: samples of each tool")
	imageKeep   = flag.String("image-keep", "", "image: a directory in which the images are kept for the next time")
	imageKinds  = flag.String("image-kinds", "gzip,zstd,single,small", "image: which images")
	imageParts  = flag.String("image-parts", "unpack,pull,pull-unpack,push,save,load,commit,diff,snapshot,rebuild,start", "image: what is measured; all but unpack with the first image")
)

// imageLayout is an OCI layout of our making.
type imageLayout struct {
	dir        string
	Comp       string
	Layers     []string // paths of blobs, the lowest first
	Tar, Blobs int64
	Entries    int
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
