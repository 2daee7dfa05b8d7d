package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An ordinary user owns all files of a store, whoever owns them in the image. What COPY --from takes out of a layer keeps its owner all
// the same: it is read from the layer's archive.

// attributes are those that an ordinary user's files cannot have. The zero value is a file of root's.
type attributes struct {
	uid, gid   int
	capability string
}

// ownerIndex remembers the files of layers that are not root's, by the digest of the layer.
type ownerIndex struct {
	mu     sync.Mutex
	layers map[string]map[string]attributes
}

// owners returns what tells the owners in layers, of which the first given is the lowest and number 0 the topmost.
func (b *builder) owners(layers []ocispec.Descriptor) func(layer int) (map[string]attributes, error) {
	return func(layer int) (map[string]attributes, error) {
		d := layers[len(layers)-1-layer]
		x := &b.index
		x.mu.Lock()
		defer x.mu.Unlock()
		if known, ok := x.layers[d.Digest.String()]; ok {
			return known, nil
		}
		known, err := readOwners(filepath.Join(b.store.Dir(), "blobs", "sha256", d.Digest.Encoded()))
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		if x.layers == nil {
			x.layers = map[string]map[string]attributes{}
		}
		x.layers[d.Digest.String()] = known
		return known, nil
	}
}

// readOwners reads the headers of a layer, which the store has verified.
func readOwners(blob string) (map[string]attributes, error) {
	f, err := os.Open(blob)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, end, err := decompress(f)
	if err != nil {
		return nil, err
	}
	defer end()
	out := map[string]attributes{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		a := attributes{uid: h.Uid, gid: h.Gid, capability: h.PAXRecords["SCHILY.xattr.security.capability"]}
		name := clean(h.Name)
		if h.Typeflag == tar.TypeLink {
			a = out[clean(h.Linkname)]
		}
		if delete(out, name); a != (attributes{}) {
			out[strings.Clone(name)] = a
		}
	}
}

// decompress reads the compressions that layers have.
func decompress(f io.Reader) (io.Reader, func() error, error) {
	head, r, err := sniff(f, 6)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range magics {
		if strings.HasPrefix(string(head), m.magic) {
			z, err := m.open(context.Background(), r)
			if err != nil {
				return nil, nil, err
			}
			return z, z.Close, nil
		}
	}
	return r, func() error { return nil }, nil
}
