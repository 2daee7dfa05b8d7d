package image

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/caisson-go/caisson/internal/erofs"
)

// A layer that is mounted instead of being unpacked is a file in the place of its directory:
//
//	layers/KEY-erofs/layer.erofs   what the kernel mounts; see the package internal/erofs
//	layers/KEY-erofs/layer.json    its mark, as that of a directory, with what the file is checked by
//
// So it is shared, leased and removed as directories are.
const (
	fileBlob = "layer.erofs"
	erofsKey = "-erofs"
)

// mountPrefix is before the names of directories in the ingest directory in which files of EROFS are mounted, for kernels that make no overlay of what is
// mounted nowhere. fileMounted in them is locked as long as the mount is in use.
const (
	mountPrefix = "mount-"
	fileMounted = "used"
)

// blobMounts are the files of EROFS that this Store has mounted.
type blobMounts struct {
	sync.Mutex
	of map[string]*blobMount
}

// isBlobKey tells layers that are files from directories.
func isBlobKey(key string) bool { return strings.Contains(key, erofsKey) }

// blobMark is what a file of EROFS is checked by.
type blobMark struct {
	Sum  string `json:"sum"` // erofs.Sum, in hexadecimal digits
	Size int64  `json:"size"`
	// Verity is the digest that the kernel measures the file by, "sha256:…" (fs-verity); empty where the file system has none.
	Verity string `json:"verity,omitempty"`
}

// blobFile is a file of EROFS that is open for reading.
type blobFile struct {
	file *os.File
	size int64
}

// openBlobFile opens the file of a layer, and looks whether it is what its mark says as far as that costs nothing.
func (s *Store) openBlobFile(key string, m *blobMark) (*blobFile, error) {
	b, err := openBlobAt(s.layerDir(key))
	if err != nil {
		return nil, err
	}
	if b.size != m.Size {
		err = because(ErrSize, "%s has %d bytes, its mark says %d", fileBlob, b.size, m.Size)
	} else if m.Verity != "" {
		err = checkVerity(b.file, m.Verity)
	}
	if err != nil {
		b.file.Close()
		return nil, err
	}
	return b, nil
}

func openBlobAt(path string) (*blobFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = because(ErrCorrupt, "%s is no file", fileBlob)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &blobFile{f, fi.Size()}, nil
}

// verifyLayers reads the files of EROFS and compares them with what was written. Directories are not looked at.
func (s *Store) verifyLayers(ctx context.Context) (faults []Fault, err error) {
	entries, err := os.ReadDir(s.path(dirLayers))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !isBlobKey(e.Name()) {
			continue
		}
		m, err := s.readMark(e.Name())
		if notExist(err) {
			continue // not complete, or removed meanwhile: it is made again when it is needed
		}
		if err == nil {
			err = s.verifyLayer(ctx, e.Name(), m)
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case notExist(err):
			if _, err := os.Lstat(s.path(filepath.Join(dirLayers, e.Name(), fileMark))); notExist(err) {
				continue
			}
			fallthrough
		case err != nil:
			faults = append(faults, Fault{Layer: e.Name(), Err: err})
		}
	}
	return faults, nil
}

func (s *Store) verifyLayer(ctx context.Context, key string, m *mark) error {
	if m.Blob == nil {
		return because(ErrCorrupt, "its mark is that of a directory")
	}
	b, err := s.openBlobFile(key, m.Blob)
	if err != nil {
		return err
	}
	defer b.file.Close()
	sum, err := erofs.Sum(ctxReaderAt{ctx, b.file}, b.size)
	if err == nil && hex.EncodeToString(sum[:]) != m.Blob.Sum {
		err = because(ErrDigest, "%s is %x, its mark says %s", fileBlob, sum, clip(m.Blob.Sum))
	}
	return err
}

// ctxReaderAt ends with its context.
type ctxReaderAt struct {
	ctx context.Context
	r   io.ReaderAt
}

func (r ctxReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.ReadAt(p, off)
}

// components counts the names in a clean path.
func components(path string) int { return strings.Count(path, "/") + 1 }

// removeLayer removes an unpacked layer. Containers that have it keep it.
func (s *Store) removeLayer(key string) error {
	trash, err := s.discard(s.path(filepath.Join(dirLayers, key)))
	if err != nil {
		return err
	}
	return removeTree(trash)
}

// mountNeeds says what is missing.
func mountNeeds(err error) error {
	const otherwise = ", or unpack into directories: leave EROFS out"
	e := &Error{Op: "mount", Object: fileBlob, Err: err}
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		e.Err = errors.Join(err, errors.ErrUnsupported)
		e.Remedy = "the kernel mounts EROFS for CAP_SYS_ADMIN in the machine's own user namespace only: run as root outside of containers" + otherwise
	case errors.Is(err, syscall.ENODEV):
		e.Err = errors.Join(err, errors.ErrUnsupported)
		e.Remedy = "the kernel has no EROFS: load the module erofs (CONFIG_EROFS_FS)" + otherwise
	case errors.Is(err, syscall.ENOSYS):
		e.Err = errors.Join(err, errors.ErrUnsupported)
		e.Remedy = "fsopen(2) needs Linux 5.2, and a seccomp filter that lets it through" + otherwise
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENOTTY):
		e.Err = errors.Join(err, errors.ErrUnsupported)
		e.Remedy = "without Linux 6.12 and CONFIG_EROFS_FS_BACKED_BY_FILE it needs a loop device, and Linux 5.8: load the module loop, and have /dev/loop-control" + otherwise
	}
	return e
}
