package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
)

const (
	bigBlobEnv     = "CAISSON_TEST_BIGBLOB" // bytes of the one file in the layer
	bigBlobDefault = 48 << 20
	bigBlobMemory  = 40 << 20 // that may be taken more than before
)

// endlessZeros has no end.
type endlessZeros struct{}

func (endlessZeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// bigLayer writes a layer with one file of n bytes.
func bigLayer(w io.Writer, n int64) error {
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: n, Mode: 0o644, Format: tar.FormatPAX, ModTime: at}); err != nil {
		return err
	}
	if _, err := io.CopyN(t, endlessZeros{}, n); err != nil {
		return err
	}
	return t.Close()
}

// skipWriter forgets the first bytes, and counts all.
type skipWriter struct {
	w       io.Writer
	skip, n int64
}

func (s *skipWriter) Write(p []byte) (int, error) {
	rest := p[min(int64(len(p)), max(0, s.skip-s.n)):]
	s.n += int64(len(p))
	if len(rest) == 0 {
		return len(p), nil
	}
	_, err := s.w.Write(rest)
	return len(p), err
}

// bigImage makes the documents of an image whose layer is nowhere but in the shelf's answers.
func bigImage(t *testing.T, h *shelf, layer ocispec.Descriptor) {
	t.Helper()
	use := must[*os.File](t)(h.s.use(context.Background()))
	defer use.Close()
	put := func(mediaType string, v any) ocispec.Descriptor {
		data := must[[]byte](t)(json.Marshal(v))
		return must[ocispec.Descriptor](t)(h.s.putBlob(mediaType, data))
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	m.Config = put(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: LocalPlatform(), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}})
	h.tag = put(ocispec.MediaTypeImageManifest, m)
}

// sink takes what is pushed and keeps nothing but sums.
type sink struct {
	size, sum atomic.Value // of the largest blob
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodHead:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPost:
		w.Header().Set("Location", "/v2/team/app/blobs/uploads/1")
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut:
		var sum hash.Hash = sha256.New()
		n, _ := io.Copy(sum, r.Body)
		if most, _ := s.size.Load().(int64); n > most {
			s.size.Store(n)
			s.sum.Store(fmt.Sprintf("sha256:%x", sum.Sum(nil)))
		}
		w.Header().Set("Docker-Content-Digest", r.URL.Query().Get("digest"))
		w.WriteHeader(http.StatusCreated)
	}
}

// A layer of many GB is fetched, the transfer taken up again where it broke off late, unpacked and sent, in little memory and with no more on disk than
// itself and its file. CAISSON_TEST_BIGBLOB=6000000000 is beyond what 32 bits count; the disk has to have room for it twice.
func TestBigBlob(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	size := int64(bigBlobDefault)
	if v := os.Getenv(bigBlobEnv); v != "" {
		size = must[int64](t)(strconv.ParseInt(v, 10, 64))
	}
	sum := sha256.New()
	count := &skipWriter{w: sum}
	if err := bigLayer(count, size); err != nil {
		t.Fatal(err)
	}
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.NewDigestFromBytes(digest.SHA256, sum.Sum(nil)), Size: count.n}
	h := &shelf{s: openStore(t, Options{})}
	bigImage(t, h, layer)
	var resumed atomic.Int64
	breakAt := layer.Size - layer.Size/8
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer.Digest.String()) {
			return false
		}
		var from int64
		end := layer.Size
		w.Header().Set("Accept-Ranges", "bytes")
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, layer.Size-1, layer.Size))
			resumed.Store(from)
		} else {
			end = breakAt
		}
		w.Header().Set("Content-Length", strconv.FormatInt(layer.Size-from, 10))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		out := &skipWriter{w: &stopWriter{w: w, left: end - from}, skip: from}
		_ = bigLayer(out, size) // it stops midway
		return true
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := openStore(t, Options{})
	name := h.serve(t)
	must[Image](t)(s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}))
	if got := resumed.Load(); got < layer.Size/2 {
		t.Errorf("taken up again at %d of %d", got, layer.Size)
	}
	u := must[*Unpacked](t)(s.Unpack(ctx, name, UnpackOptions{}))
	fi := must[os.FileInfo](t)(os.Stat(u.Dirs[0] + "/big"))
	if fi.Size() != size {
		t.Errorf("a file of %d bytes, want %d", fi.Size(), size)
	}
	var to sink
	srv := httptest.NewServer(&to)
	t.Cleanup(srv.Close)
	if err := s.Push(ctx, name, strings.TrimPrefix(srv.URL, "http://")+"/team/app:1", PushOptions{RegistryOptions: anonymous}); err != nil {
		t.Fatal(err)
	}
	if n, _ := to.size.Load().(int64); n != layer.Size || to.sum.Load() != layer.Digest.String() {
		t.Errorf("%d bytes sent with the digest %v, want %d and %s", n, to.sum.Load(), layer.Size, layer.Digest)
	}
	runtime.ReadMemStats(&after)
	t.Logf("%d bytes: %d bytes of memory more", layer.Size, after.Sys-before.Sys)
	if took := after.Sys - before.Sys; after.Sys > before.Sys && took > bigBlobMemory {
		t.Errorf("%d bytes of memory", took)
	}
	if used := diskUse(t, s.Dir()); used > layer.Size+size+8<<20 {
		t.Errorf("%d bytes on disk for a layer of %d", used, layer.Size)
	}
}

// stopWriter breaks off after so many bytes, as a connection does.
type stopWriter struct {
	w    io.Writer
	left int64
}

func (s *stopWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p[:min(int64(len(p)), s.left)])
	if s.left -= int64(n); err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// diskUse adds the blocks of all files up.
func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
		if err == nil {
			n += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
