package image

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// What documents say, and where an image's layers are, is remembered for as long as the files are the same ones. A container's start needs it, and finding
// it out takes longer than all else that is done for one there: documents are checked as a whole, and directories without an entry are looked up in
// all layers below.
const (
	maxKnownImages = 8
	maxKnownSize   = 256 << 10 // of an image's documents
	maxKnownLayers = 512
)

// knownImages are those that were asked for last, the latest first.
type knownImages struct {
	mu   sync.Mutex
	list []knownImage
}

// knownImage is never changed, nor is what it refers to.
type knownImage struct {
	key       knownKey
	unpacked  *Unpacked
	documents []knownFile
	layers    []knownFile
}

type knownKey struct {
	digest    digest.Digest
	mediaType string
	size      int64
	platform  string // as JSON
	plain     bool
	erofs     bool
}

type knownFile struct {
	path string
	is   os.FileInfo
}

// unpackKnown is unpack for those who hand nothing of the image's documents on. The caller holds the lock.
func (s *Store) unpackKnown(ctx context.Context, img Image, o UnpackOptions) (*Unpacked, error) {
	want, err := json.Marshal(o.Platform)
	if err != nil {
		return nil, err
	}
	key := knownKey{img.Descriptor.Digest, img.Descriptor.MediaType, img.Descriptor.Size, string(want), o.plain, o.EROFS}
	known, ok := s.known.find(key)
	if ok && !slices.ContainsFunc(known.layers, knownFile.changed) {
		return known.unpacked.of(img), nil
	}
	var info *Info
	if ok {
		info = known.unpacked.of(img).Info
	} else if info, err = s.inspectImage(img, o.Platform); err != nil {
		return nil, err
	}
	u, err := s.unpackInfo(ctx, info, o)
	if err != nil {
		return nil, err
	}
	s.remember(key, u)
	return u.of(img), nil
}

// of is a copy for one who asked for the image under that name.
func (u *Unpacked) of(img Image) *Unpacked {
	c, info := *u, *u.Info
	info.Image = img
	c.Info, c.Dirs, c.Blobs, c.Notes = &info, slices.Clone(u.Dirs), slices.Clone(u.Blobs), slices.Clone(u.Notes)
	c.keys, c.marks = slices.Clone(u.keys), slices.Clone(u.marks)
	return &c
}

// find returns what is known of an image, if its documents are what they were.
func (k *knownImages) find(key knownKey) (knownImage, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.list, func(e knownImage) bool { return e.key == key })
	if i < 0 {
		return knownImage{}, false
	}
	e := k.list[i]
	k.list = slices.Delete(k.list, i, i+1)
	if slices.ContainsFunc(e.documents, knownFile.changed) {
		return knownImage{}, false
	}
	k.list = slices.Insert(k.list, 0, e)
	return e, true
}

// put enters an image in place of what was known of it.
func (k *knownImages) put(e knownImage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = slices.DeleteFunc(k.list, func(old knownImage) bool { return old.key == e.key })
	k.list = slices.Insert(k.list, 0, e)
	if len(k.list) > maxKnownImages {
		k.list = slices.Delete(k.list, maxKnownImages, len(k.list))
	}
}

// remember keeps what was found out. Files are looked at only now: those of a digest never change but by damage, and layers not while the lock is held.
func (s *Store) remember(key knownKey, u *Unpacked) {
	if len(u.keys) > maxKnownLayers || u.Manifest.Size+key.size > maxKnownSize {
		return
	}
	e := knownImage{key: key, unpacked: u}
	size := int64(0)
	for _, d := range []digest.Digest{key.digest, u.Manifest.Digest, u.ID} {
		f, ok := knownNow(s.blobPath(d))
		if !ok {
			return
		}
		size += f.is.Size()
		e.documents = append(e.documents, f)
	}
	for _, k := range u.keys {
		f, ok := knownNow(s.path(filepath.Join(dirLayers, k, fileMark)))
		if !ok {
			return
		}
		e.layers = append(e.layers, f)
	}
	if size <= maxKnownSize {
		s.known.put(e)
	}
}

func knownNow(path string) (knownFile, bool) {
	is, err := os.Lstat(path)
	return knownFile{path, is}, err == nil
}

func (f knownFile) changed() bool {
	now, err := os.Lstat(f.path)
	return err != nil || !os.SameFile(now, f.is) || now.Size() != f.is.Size() || !now.ModTime().Equal(f.is.ModTime()) || now.Mode() != f.is.Mode()
}
