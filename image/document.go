package image

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker, which are read as the ones of OCI that they became.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGz  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZst = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

// Bounds of what is read into memory.
const (
	maxManifest  = 4 << 20  // as registries have it
	maxConfig    = 8 << 20  // config of an image
	maxIndexFile = 64 << 20 // index.json of a store
	maxNested    = 4        // indexes within indexes
	maxEntries   = 4096     // descriptors in an index
	maxLayers    = 500      // as overlayfs has it
)

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

func isConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == dockerConfig
}

// isLayer accepts what can be unpacked. What is in the layer is told by its first bytes.
func isLayer(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, dockerLayer, dockerLayerGz, dockerLayerZst,
		"application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		return true
	}
	return false
}

// parseIndex reads an index of OCI or a manifest list of Docker.
func parseIndex(data []byte, mediaType string) (*ocispec.Index, error) {
	if err := checkDocument(data, mediaType, "manifests", "layers", "config", "fsLayers", "history"); err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, because(ErrDocument, "index: %v", err)
	}
	if len(index.Manifests) > maxEntries {
		return nil, because(ErrDocument, "index with %d entries; at most %d", len(index.Manifests), maxEntries)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return nil, err
		}
	}
	return &index, nil
}

// parseManifest reads the manifest of an image.
func parseManifest(data []byte, mediaType string) (*ocispec.Manifest, error) {
	if err := checkDocument(data, mediaType, "layers", "manifests", "fsLayers", "history"); err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, because(ErrDocument, "manifest: %v", err)
	}
	if len(m.Layers) > maxLayers {
		return nil, because(ErrDocument, "manifest with %d layers; at most %d", len(m.Layers), maxLayers)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// checkDescriptor refuses what could not be fetched and verified.
func checkDescriptor(d ocispec.Descriptor) error {
	if _, err := ParseDigest(d.Digest.String()); err != nil {
		return err
	}
	if d.Size < 0 {
		return because(ErrDocument, "%s has the size %d", d.Digest, d.Size)
	}
	if len(d.MediaType) > 255 {
		return because(ErrDocument, "%s has a media type of %d bytes", d.Digest, len(d.MediaType))
	}
	return nil
}

// checkDocument refuses a document that different programs could take for different things (CVE-2021-41190): one without the key that makes
// it what it is, with a key that belongs to the other kind, with a media type of its own that is not the one it was
// referred to by, with the same key twice, or with a key in another case, which Go's decoder would take for the same.
func checkDocument(data []byte, mediaType, must string, not ...string) error {
	keys, err := topKeys(data)
	if err != nil {
		return err
	}
	if _, ok := keys[must]; !ok {
		return because(ErrDocument, "no %q, which %s has", must, shown(mediaType))
	}
	known := append([]string{must, "mediaType", "schemaVersion", "config", "layers", "manifests", "subject", "annotations", "artifactType"}, not...)
	for k := range keys {
		for _, n := range known {
			if k != n && strings.EqualFold(k, n) {
				return because(ErrDocument, "key %q beside %q", k, n)
			}
		}
	}
	for _, n := range not {
		if _, ok := keys[n]; ok {
			return because(ErrDocument, "%q and %q in one document", must, n)
		}
	}
	var own string
	if raw, ok := keys["mediaType"]; ok {
		if err := json.Unmarshal(raw, &own); err != nil || own != "" && own != mediaType {
			return because(ErrDocument, "it was announced as %s and calls itself %s", shown(mediaType), shown(string(raw)))
		}
	}
	return nil
}

// topKeys returns the members of the outermost object, after a look at the whole for what noDuplicates refuses.
func topKeys(data []byte) (map[string]json.RawMessage, error) {
	if err := noDuplicates(data); err != nil {
		return nil, err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, because(ErrDocument, "%v", err)
	}
	if keys == nil {
		return nil, because(ErrDocument, "it is no JSON object")
	}
	return keys, nil
}

// mention is what a descriptor says of a blob. Indexes may name the same one again and again, on each level: who walks through an image remembers where it was.
type mention struct {
	digest    digest.Digest
	mediaType string
	size      int64
}

func mentionOf(d ocispec.Descriptor) mention { return mention{d.Digest, d.MediaType, d.Size} }
