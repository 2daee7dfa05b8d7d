package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Freed is what was removed.
type Freed struct {
	Blobs     int   // blobs that no image needs, and interrupted downloads
	BlobBytes int64 // their sizes
	Layers    int   // unpacked layers that neither an image nor a container needs
}

// prefixes of names in the ingest directory.
const (
	partialPrefix = "partial-" // downloads, to be taken up again
	trashPrefix   = "trash-"   // layers that are being removed
)

// partialAge is for how long an interrupted download is kept.
const partialAge = 24 * time.Hour

// GC removes the blobs and unpacked layers that no image needs. Layers that a container uses are kept, whoever runs it, and
// also when its image has been removed. GC waits until nobody pulls, loads or unpacks; others wait for it only while it decides. What is not removed yet when ctx ends is of no
// use to anyone, and goes with the next GC or [Open].
func (s *Store) GC(ctx context.Context) (Freed, error) {
	freed, err := s.collect(ctx)
	return freed, fail("collect garbage", s.dir, err)
}

func (s *Store) collect(ctx context.Context) (Freed, error) {
	var freed Freed
	lock, err := s.alone(ctx)
	if err != nil {
		return freed, err
	}
	defer lock.Close()
	needed, err := s.reachable()
	if err != nil {
		return freed, err
	}
	if err := s.addLeased(needed); err != nil {
		return freed, err
	}
	if err := s.removeBlobs(needed, &freed); err != nil {
		return freed, err
	}
	earlier, err := s.discarded()
	if err != nil {
		return freed, err
	}
	trash, err := s.retireLayers(needed)
	if err != nil {
		return freed, err
	}
	freed.Layers = len(trash)
	if err := s.clearIngest(true); err != nil {
		return freed, err
	}
	lock.Close() // what follows no longer has a name that anybody looks for
	var faults []error
	for _, t := range trash {
		if ctx.Err() != nil {
			return freed, context.Cause(ctx) // the next GC or Open goes on
		}
		faults = append(faults, removeTree(t))
	}
	for _, t := range earlier { // of one that was cancelled, or is at it
		if ctx.Err() != nil {
			return freed, context.Cause(ctx)
		}
		_ = removeTree(t)
	}
	return freed, errors.Join(faults...)
}

// Marks tell apart what a digest is needed as: the digest of an uncompressed layer is that of its blob.
const (
	layerMark = "layer/" // an unpacked layer
	walkMark  = "walk/"  // a document, with its media type: what it names is known, or read soon
)

// reachable is what the images in index.json need: blobs by their digest, unpacked layers by their diff ID.
func (s *Store) reachable() (map[string]bool, error) {
	list, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for _, d := range list {
		if err := s.reach(d, needed); err != nil {
			return nil, err
		}
	}
	return needed, s.addSnapshots(needed)
}

// reach adds an entry and what is below it. A descriptor in an image may say anything of anybody's blob: that it is a layer, of another size, many indexes down. So a blob is
// read as each thing that it is said to be, once and however deep, and what turns out to be no such thing names nothing.
func (s *Store) reach(entry ocispec.Descriptor, needed map[string]bool) error {
	var todo []ocispec.Descriptor
	add := func(list ...ocispec.Descriptor) {
		for _, d := range list {
			needed[d.Digest.Encoded()] = true
			walked := walkMark + d.MediaType + "/" + d.Digest.Encoded()
			if needed[walked] || !isIndex(d.MediaType) && !isManifest(d.MediaType) && !isConfig(d.MediaType) || !s.hasBlob(d) {
				continue // what an index names need not be there
			}
			needed[walked] = true
			todo = append(todo, d)
		}
	}
	add(entry)
	for first := true; len(todo) > 0; first = false {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		list, err := s.namedBy(d, needed)
		if errors.Is(err, ErrDocument) && !first {
			continue
		}
		if err != nil {
			return &Error{Op: "read", Object: d.Digest.String(), Err: err, Remedy: "call Repair; nothing is removed before"}
		}
		add(list...)
	}
	return nil
}

// namedBy returns what a document names. Of a config these are unpacked layers, which it adds itself.
func (s *Store) namedBy(d ocispec.Descriptor, needed map[string]bool) ([]ocispec.Descriptor, error) {
	if isConfig(d.MediaType) {
		return nil, s.reachLayers(d, needed)
	}
	return s.children(d)
}

// reachLayers adds the unpacked layers of an image. A config that is no image's has none.
func (s *Store) reachLayers(d ocispec.Descriptor, needed map[string]bool) error {
	data, err := s.readBlob(d, maxConfig)
	if err != nil {
		return err
	}
	if c, err := ParseConfig(data); err == nil {
		for _, id := range c.DiffIDs {
			needed[layerMark+digest.Digest(id).Encoded()] = true
		}
	}
	return nil
}

// children are the descriptors that an index or a manifest holds.
func (s *Store) children(d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if isIndex(d.MediaType) {
		index, err := s.index(d)
		if err != nil {
			return nil, err
		}
		return index.Manifests, nil
	}
	m, err := s.manifest(d)
	if err != nil {
		return nil, err
	}
	return append([]ocispec.Descriptor{m.Config}, m.Layers...), nil
}

func (s *Store) removeBlobs(needed map[string]bool, freed *Freed) error {
	entries, err := os.ReadDir(s.path(dirBlobs + "/sha256"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if needed[e.Name()] {
			continue
		}
		if fi, err := e.Info(); err == nil {
			freed.BlobBytes += fi.Size()
		}
		if err := os.Remove(s.path(dirBlobs + "/sha256/" + e.Name())); err != nil && !notExist(err) {
			return err
		}
		freed.Blobs++
	}
	return nil
}

// retireLayers moves unpacked layers out of the way of whoever looks for them, and returns where they are.
func (s *Store) retireLayers(needed map[string]bool) ([]string, error) {
	entries, err := os.ReadDir(s.path(dirLayers))
	if err != nil {
		return nil, err
	}
	var trash []string
	for _, e := range entries {
		if needed[layerMark+baseKey(e.Name())] || needed[layerMark+e.Name()] {
			continue
		}
		to, err := s.discard(s.path(dirLayers + "/" + e.Name()))
		if err != nil {
			return trash, err
		}
		trash = append(trash, to)
	}
	return trash, nil
}

// discard renames a directory into the ingest directory, where it counts no more.
func (s *Store) discard(dir string) (string, error) {
	holder, err := os.MkdirTemp(s.path(dirIngest), trashPrefix)
	if err != nil {
		return "", err
	}
	return holder, os.Rename(dir, filepath.Join(holder, "layer"))
}

// discarded are the directories that count no more and are still there.
func (s *Store) discarded() (out []string, err error) {
	entries, err := os.ReadDir(s.path(dirIngest))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), trashPrefix) {
			out = append(out, s.path(dirIngest+"/"+e.Name()))
		}
	}
	return out, err
}

// clearIngest removes what is half done. The caller has the store alone. all includes downloads that nobody took up
// for a day.
func (s *Store) clearIngest(all bool) error {
	entries, err := os.ReadDir(s.path(dirIngest))
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), trashPrefix) && all {
			continue // a GC removes it without the lock
		}
		if strings.HasPrefix(e.Name(), trashPrefix) {
			_ = removeTree(s.path(dirIngest + "/" + e.Name())) // or whoever began it does
			continue
		}
		if strings.HasPrefix(e.Name(), mountPrefix) {
			faults = append(faults, clearStaleMount(s.path(dirIngest+"/"+e.Name())))
			continue
		}
		if strings.HasPrefix(e.Name(), partialPrefix) {
			fi, err := e.Info()
			if err != nil || !all || time.Since(fi.ModTime()) < partialAge {
				continue
			}
		}
		faults = append(faults, removeTree(s.path(dirIngest+"/"+e.Name())))
	}
	return errors.Join(faults...)
}

// removeTree removes a tree of ours, also where an ordinary user unpacked directories that their owner may not write, and where a container made
// directories deeper than files can be open.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		if err = flatten(dir, 256); err == nil {
			err = os.RemoveAll(dir)
		}
	}
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	if err = openUp(root, filepath.Base(dir)); errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		// Of subordinate ids: of a container's, or of the image's.
		if err = reclaim(context.Background(), dir); err == nil || notExist(err) {
			err = openUp(root, filepath.Base(dir))
		}
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// openUp gives the owner of all directories below name the right to change them. It goes down with a handle for each level,
// since whole paths may be longer than the kernel takes.
func openUp(parent *os.Root, name string) error {
	gone := func(err error) error { // by another who removes it too
		if notExist(err) {
			return nil
		}
		return err
	}
	if err := parent.Chmod(name, 0o700); err != nil {
		return gone(err)
	}
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return gone(err)
	}
	defer dir.Close()
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := openUp(dir, e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}
