package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/namespaces"
)

// The files of a store. The first three are an image layout as the OCI image specification has it
// (image-layout.md), so that other tools read it; they must not write to it.
//
//	oci-layout      {"imageLayoutVersion": "1.0.0"}
//	index.json      the images and their names
//	blobs/sha256/   manifests, configs and layers, as files named after their digest
//	layers/         layers that were unpacked: layers/KEY/fs and layers/KEY/layer.json
//	snapshots/      root filesystems that persist; see snapshot_record.go
//	leases/         who uses which of them
//	ingest/         what is being written
//	lock            shared by whoever uses blobs or layers, exclusive for whoever removes some
//	index.lock      exclusive for whoever changes index.json
//
// Everything is written beside its place, synced, and renamed into it, so that there is no moment at which a crash
// leaves something half done under a name that counts. A blob is synced before the index that refers to it.
const (
	fileLayout    = ocispec.ImageLayoutFile
	fileIndex     = ocispec.ImageIndexFile
	dirBlobs      = ocispec.ImageBlobsDir
	dirLayers     = "layers"
	dirLeases     = "leases"
	dirIngest     = "ingest"
	fileLock      = "lock"
	fileIndexLock = "index.lock"
)

// Options of a store. The zero value is the default.
type Options struct {
	// Limits bound what an image may cost; see [Limits] for the defaults of fields that are zero.
	Limits Limits
	// Policy says how layers are unpacked.
	Policy Policy
}

// Store is a directory with images. Any number of goroutines, programs and processes of one user may use it at once. Make it
// with [Open].
type Store struct {
	dir    string
	limits Limits
	policy Policy
	boot   string
	// maps are those that files of unpacked layers have their owners by; zero where they belong to the caller, or to whom the image says. shortfall
	// is why, where others are asked for.
	maps      namespaces.IDMaps
	shortfall error
	closed    atomic.Bool
	mounts    blobMounts
	// overlay is why overlayfs cannot serve here, found out once.
	overlay func() error
	known   knownImages
}

// DefaultDir is where a user's images are by default: /var/lib/caisson/images for root, otherwise $XDG_DATA_HOME/caisson/images or
// $HOME/.local/share/caisson/images. Nothing is made.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/caisson/images", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "caisson/images"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fail("find the default store", "", err)
	}
	return filepath.Join(home, ".local/share/caisson/images"), nil
}

// Open opens the store in a directory, which is made with mode 0700 where it is missing, with its parents. A directory that another user
// owns or can enter is refused, and so is one that holds something else. What a killed program left half done is removed, if
// nobody uses the store in this moment.
//
// Linux only; elsewhere the answer is [errors.ErrUnsupported].
func Open(dir string, o Options) (*Store, error) {
	s := &Store{limits: o.Limits.withDefaults(), policy: o.Policy}
	var err error
	if s.boot, err = bootID(); err != nil {
		return nil, fail("open store", dir, err)
	}
	if err := errors.Join(o.Limits.check(), o.Policy.check()); err != nil {
		return nil, fail("open store", dir, err)
	}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return nil, fail("open store", dir, err)
	}
	if err := s.ownersFor(o.Policy); err != nil {
		return nil, fail("open store", dir, err)
	}
	s.overlay = sync.OnceValue(s.probeOverlay)
	if err := s.prepare(); err != nil {
		return nil, fail("open store", dir, err)
	}
	return s, nil
}

// prepare makes what is missing and cleans up.
func (s *Store) prepare() error {
	if err := makeStoreDir(s.dir); err != nil {
		return err
	}
	if err := checkOwner(s.dir); err != nil {
		return &Error{Op: "open store", Object: s.dir, Err: err, Remedy: "give it to its user with chown and chmod 0700, or name another directory"}
	}
	if err := s.checkContent(); err != nil {
		return err
	}
	for _, d := range []string{dirBlobs, dirBlobs + "/sha256", dirLayers, dirLeases, dirIngest, dirSnapshots} {
		if err := os.Mkdir(s.path(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	lock, err := lockFile(context.Background(), s.path(fileIndexLock), true)
	if err != nil {
		return err
	}
	defer lock.Close()
	layout, _ := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err := s.writeMissing(fileLayout, layout); err != nil {
		return err
	}
	empty, _ := json.Marshal(newIndex(nil))
	if err := s.writeMissing(fileIndex, empty); err != nil {
		return err
	}
	if _, err := s.readIndex(); err != nil {
		return err
	}
	return s.tidy()
}

// makeStoreDir makes a directory whose parents others may enter and which they may not.
func makeStoreDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// checkContent refuses directories that are neither empty nor a store.
func (s *Store) checkContent() error {
	data, err := readBounded(s.path(fileLayout), 4096)
	if err == nil {
		var l ocispec.ImageLayout
		if err := json.Unmarshal(data, &l); err != nil || l.Version != ocispec.ImageLayoutVersion {
			return because(ErrCorrupt, "its %s is of another version than %s", fileLayout, ocispec.ImageLayoutVersion)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(s.path(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case fileLayout, fileIndex, dirBlobs, dirLayers, dirLeases, dirIngest, dirSnapshots, fileLock, fileIndexLock:
		default:
			return because(fs.ErrExist, "it is no image store and holds %q; name an empty directory", clip(e.Name()))
		}
	}
	return nil
}

// writeMissing writes a file of the layout that is not there yet.
func (s *Store) writeMissing(name string, data []byte) error {
	if _, err := os.Lstat(s.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.replaceFile(name, data)
}

// tidy removes what is half done, if nobody is at work. Interrupted downloads stay: they are taken up again.
func (s *Store) tidy() error {
	lock, err := tryLockFile(s.path(fileLock), true)
	if errors.Is(err, errWouldBlock) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.clearIngest(false)
}

// Close ends the use of s. Sources made of it that describe running containers keep what they use. Closing twice is
// harmless.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

// Dir is the store's directory, an absolute path.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// blobPath is where a blob is. d has been parsed by ParseDigest: nothing else ever becomes a path.
func (s *Store) blobPath(d digest.Digest) string {
	if _, err := ParseDigest(d.String()); err != nil {
		panic("image: bug: path of an unchecked digest; please report this")
	}
	return filepath.Join(s.dir, dirBlobs, "sha256", d.Encoded())
}

// use keeps blobs and layers from being removed until the returned file is closed.
func (s *Store) use(ctx context.Context) (*os.File, error) {
	if s.closed.Load() {
		return nil, fail("use store", s.dir, fs.ErrClosed)
	}
	f, err := lockFile(ctx, s.path(fileLock), false)
	return f, fail("lock store", s.dir, err)
}

// alone waits until nobody uses the store, and keeps others out until the returned file is closed.
func (s *Store) alone(ctx context.Context) (*os.File, error) {
	if s.closed.Load() {
		return nil, fail("use store", s.dir, fs.ErrClosed)
	}
	f, err := lockFile(ctx, s.path(fileLock), true)
	return f, fail("lock store", s.dir, err)
}

// readBounded reads a small file.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAllBounded(f, limit)
}

func readAllBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = because(ErrDocument, "longer than %d bytes", limit)
	}
	return data, err
}

// replaceFile writes a file of the store's directory so that it is there whole, or as it was before, whatever happens.
func (s *Store) replaceFile(name string, data []byte) error {
	f, err := os.CreateTemp(s.path(dirIngest), "file-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it was renamed
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path(name))
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.path(name)))
	}
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
