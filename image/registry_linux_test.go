package image

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
)

// shelf is a registry that serves a store, and that tests make misbehave.
type shelf struct {
	s    *Store
	tag  ocispec.Descriptor
	seen sync.Map // blobs that were asked for, with the Range
	// before may answer a request itself, and then returns true.
	before func(w http.ResponseWriter, r *http.Request) bool
}

func (h *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.before != nil && h.before(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	repo, what, ok := strings.Cut(path, "/manifests/")
	d := h.tag
	if !ok {
		repo, what, ok = strings.Cut(path, "/blobs/")
	}
	switch {
	case path == "":
		return
	case !ok || repo != "team/app":
		http.Error(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}`, http.StatusNotFound)
		return
	case what == "1" && d.Digest != "":
		w.Header().Set("Content-Type", d.MediaType)
	default:
		var err error
		if d.Digest, err = ParseDigest(what); err != nil {
			http.Error(w, "", http.StatusNotFound)
			return
		}
		if strings.Contains(path, "/manifests/") {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			if data, err := os.ReadFile(h.s.blobPath(d.Digest)); err == nil && bytes.Contains(data, []byte(`"manifests"`)) {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			}
		}
	}
	h.seen.Store(d.Digest.String(), r.Header.Get("Range"))
	f, err := os.Open(h.s.blobPath(d.Digest))
	if err != nil {
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}`, http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	http.ServeContent(w, r, "", time.Time{}, f)
}

// serve starts the registry and returns the name of its image.
func (h *shelf) serve(t testing.TB) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // tests break connections
	srv.Start()
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://") + "/team/app:1"
}

func newShelf(t testing.TB) (*shelf, []byte) {
	t.Helper()
	s := openStore(t, Options{})
	big := randomLayer2(t, 3<<20)
	img := putImage(t, s, "a", plain(big), plain(layer(t, file("x", "x"))))
	return &shelf{s: s, tag: img.Descriptor}, big
}

func randomLayer2(t testing.TB, n int) []byte {
	var b strings.Builder
	x := uint64(1)
	for b.Len() < n {
		x = x*6364136223846793005 + 1442695040888963407
		fmt.Fprintf(&b, "%x", x)
	}
	return layer(t, file("big", b.String()))
}

var anonymous = RegistryOptions{Anonymous: true, Attempts: 3}

func TestPull(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	h, big := newShelf(t)
	name := h.serve(t)
	s := openStore(t, Options{})
	var done sync.Map
	img, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, Progress: func(p Progress) {
		if p.Done == p.Total {
			done.Store(p.Digest, p.Cached)
		}
	}})
	if err != nil || img.Name != name || img.Descriptor.Digest != h.tag.Digest {
		t.Fatalf("%v, %v", img, err)
	}
	n := 0
	done.Range(func(_, _ any) bool { n++; return true })
	if n != 2 {
		t.Errorf("progress of %d blobs", n)
	}
	if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
	u := must[*Unpacked](t)(s.Unpack(ctx, name, UnpackOptions{}))
	if len(u.Dirs) != 2 {
		t.Errorf("%v", u.Dirs)
	}
	// Nothing is fetched twice, and by its digest the same image is found.
	h.seen = sync.Map{}
	if _, err := s.Pull(ctx, strings.TrimSuffix(name, ":1")+"@"+h.tag.Digest.String(), PullOptions{RegistryOptions: anonymous}); err != nil {
		t.Error(err)
	}
	if _, ok := h.seen.Load("sha256:" + sha256Hex(big)); ok {
		t.Error("fetched twice")
	}
	for bad, want := range map[string]error{
		strings.Replace(name, ":1", ":2", 1):              ErrNotFound,
		strings.Replace(name, "app", "no", 1):             ErrNotFound,
		strings.TrimSuffix(name, ":1") + "@" + someDigest: ErrNotFound,
		"NO": ErrReference,
	} {
		if _, err := s.Pull(ctx, bad, PullOptions{RegistryOptions: anonymous}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", bad, err, want)
		}
	}
}

// twoPlatforms has a registry serve an index of its image and of one for s390x, whose layer it returns.
func twoPlatforms(t testing.TB, h *shelf) (own ocispec.Descriptor, alien []byte) {
	t.Helper()
	own, other := h.tag, h.tag
	p := LocalPlatform()
	own.Platform, other.Platform = &p, &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	alien = layer(t, file("alien", ""))
	d := putImage(t, h.s, "alien", plain(alien)).Descriptor
	other.Digest, other.Size = d.Digest, d.Size
	data := must[[]byte](t)(indexJSON(own, other))
	use := must[*os.File](t)(h.s.use(context.Background()))
	defer use.Close()
	h.tag = must[ocispec.Descriptor](t)(h.s.putBlob(ocispec.MediaTypeImageIndex, data))
	return own, alien
}

// What is wrong with one platform ends the transfer of another's layers.
func TestPullEndsWithError(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	h, big := newShelf(t)
	twoPlatforms(t, h)
	index := must[*ocispec.Index](t)(h.s.index(h.tag))
	bad := must[*ocispec.Manifest](t)(h.s.manifest(index.Manifests[1])).Config.Digest.Encoded()
	began := make(chan struct{})
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, sha256Hex(big)):
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			w.(http.Flusher).Flush()
			close(began)
			<-r.Context().Done()
			return true
		case strings.HasSuffix(r.URL.Path, bad):
			<-began
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}
	name := h.serve(t)
	s := openStore(t, Options{})
	if _, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, AllPlatforms: true}); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(s.path(dirIngest + "/" + partialPrefix + "*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A second platform that cannot be had whole leaves the first as it was.
func TestPullPlatformFails(t *testing.T) {
	ctx := context.Background()
	h, _ := newShelf(t)
	_, alien := twoPlatforms(t, h)
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, sha256Hex(alien)) {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	}
	name := h.serve(t)
	s := openStore(t, Options{})
	must[Image](t)(s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}))
	if _, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if f, err := s.Repair(ctx); err != nil || len(f) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if err := s.Save(ctx, io.Discard, name); err != nil {
		t.Error(err)
	}
}

// An index: one platform, or all that there are.
func TestPullPlatforms(t *testing.T) {
	ctx := context.Background()
	h, _ := newShelf(t)
	own, _ := twoPlatforms(t, h)
	name := h.serve(t)
	one, all := openStore(t, Options{}), openStore(t, Options{})
	must[Image](t)(one.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}))
	must[Image](t)(all.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, AllPlatforms: true}))
	if a, b := must[Usage](t)(one.Usage(ctx)).Blobs, must[Usage](t)(all.Usage(ctx)).Blobs; a != 5 || b != 8 {
		t.Errorf("%d and %d blobs", a, b)
	}
	if info, err := one.Inspect(ctx, name, nil); err != nil || info.Manifest.Digest != own.Digest {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := one.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, Platform: &ocispec.Platform{OS: "linux", Architecture: "mips"}}); !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("%v", err)
	}
	if f, err := one.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := one.GC(ctx); err != nil || f.Blobs != 0 {
		t.Errorf("%v, %v", f, err)
	}
	var b bytes.Buffer
	if err := one.Save(ctx, &b, name); err != nil {
		t.Error(err)
	}
	if _, err := openStore(t, Options{}).Load(ctx, &b, LoadOptions{}); err != nil {
		t.Errorf("an index with one of its platforms: %v", err)
	}
}

// Transfers that break go on where they were; those of a killed program too, unless what it left is wrong.
func TestPullResumes(t *testing.T) {
	ctx := context.Background()
	h, big := newShelf(t)
	hex := sha256Hex(big)
	var broken atomic.Int32
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, hex) || broken.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		w.Header().Set("Accept-Ranges", "bytes")
		if from := r.Header.Get("Range"); from != "" {
			var n int
			fmt.Sscanf(from, "bytes=%d-", &n)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", n, len(big)-1, len(big)))
			w.Header().Set("Content-Length", fmt.Sprint(len(big)-n))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(big[n : n+1<<20])
		} else {
			w.Write(big[:1<<20])
		}
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	name := h.serve(t)
	s := openStore(t, Options{})
	must[Image](t)(s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}))
	if rng, _ := h.seen.Load("sha256:" + hex); rng == "" || rng == nil {
		t.Errorf("the last request was for %v", rng)
	}
	for what, left := range map[string][]byte{"right": big[:2<<20], "wrong": bytes.Repeat([]byte("x"), 2<<20), "too long": append(append([]byte{}, big...), "more"...)} {
		s := openStore(t, Options{})
		if err := os.WriteFile(s.path(dirIngest+"/"+partialPrefix+hex), left, 0o600); err != nil {
			t.Fatal(err)
		}
		h.seen = sync.Map{}
		must[Image](t)(s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}))
		if rng, ok := h.seen.Load("sha256:" + hex); ok && (rng != "") != (what == "right") {
			t.Errorf("%s: range %v", what, rng)
		}
		if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
			t.Errorf("%s: %v, %v", what, f, err)
		}
	}
}

// A line that breaks again and again is good enough as long as something comes over it; one over which nothing comes is given up.
func TestPullResumesOften(t *testing.T) {
	for piece, want := range map[int]error{fetchProgress: nil, fetchProgress / 4: io.ErrUnexpectedEOF} {
		h, big := newShelf(t)
		var resumed atomic.Int32
		h.before = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, sha256Hex(big)) {
				return false
			}
			from, status := 0, http.StatusOK
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(big)-1, len(big)))
				status = http.StatusPartialContent
				resumed.Add(1)
			}
			w.Header().Set("Accept-Ranges", "bytes")
			w.Header().Set("Content-Length", fmt.Sprint(len(big)-from))
			w.WriteHeader(status)
			w.Write(big[from:min(from+piece, len(big))])
			if from+piece >= len(big) {
				return true
			}
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		s, o := openStore(t, Options{}), anonymous
		o.Attempts = 2
		_, err := s.Pull(context.Background(), h.serve(t), PullOptions{RegistryOptions: o})
		if !errors.Is(err, want) || want == nil && resumed.Load() < 3 || want != nil && resumed.Load() != 1 {
			t.Errorf("pieces of %d: resumed %d times, %v", piece, resumed.Load(), err)
		}
	}
}

// A registry may answer what it likes: nothing wrong gets into the store, and the error tells.
func TestHostileRegistry(t *testing.T) {
	ctx := context.Background()
	for what, c := range map[string]struct {
		answer func(w http.ResponseWriter, big []byte)
		want   error
	}{
		"other content": {func(w http.ResponseWriter, big []byte) { w.Write(bytes.Repeat([]byte("x"), len(big))) }, ErrDigest},
		"longer": {func(w http.ResponseWriter, big []byte) {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Write(big)
			w.Write(big)
		}, ErrSize},
		"rate limit":        {func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusTooManyRequests) }, ErrRateLimit},
		"unauthorized":      {func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusForbidden) }, ErrUnauthorized},
		"gone":              {func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusNotFound) }, ErrNotFound},
		"server in trouble": {func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusServiceUnavailable) }, nil},
	} {
		t.Run(what, func(t *testing.T) {
			h, big := newShelf(t)
			hex := sha256Hex(big)
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, hex) {
					c.answer(w, big)
					return true
				}
				return false
			}
			name := h.serve(t)
			s := openStore(t, Options{})
			_, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous})
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), "/team/app:1") {
				t.Errorf("%v, want %v", err, c.want)
			}
			if _, err := os.Lstat(s.dir + "/blobs/sha256/" + hex); err == nil || len(names(t, s)) != 0 {
				t.Error("it is in the store")
			}
		})
	}
}

// A context that ends ends the transfer at once, and leaves no half blob.
func TestPullCancelled(t *testing.T) {
	testutil.NoLeaks(t)
	h, big := newShelf(t)
	began := make(chan struct{})
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, sha256Hex(big)) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		w.Write(big[:1<<20])
		w.(http.Flusher).Flush()
		close(began)
		<-r.Context().Done()
		return true
	}
	name := h.serve(t)
	s := openStore(t, Options{})
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the user went away")
	go func() { <-began; cancel(why) }()
	if _, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	left, _ := filepath.Glob(s.path(dirIngest + "/" + partialPrefix + "*"))
	if len(left) != 0 || len(names(t, s)) != 0 {
		t.Errorf("left: %v", left)
	}
}

// What one platform of an index was pulled of is pushed by its platform; the whole index is not there, and the error says what helps.
func TestPushPlatform(t *testing.T) {
	ctx := context.Background()
	h, _ := newShelf(t)
	own, _ := twoPlatforms(t, h)
	s := openStore(t, Options{})
	must[Image](t)(s.Pull(ctx, h.serve(t), PullOptions{RegistryOptions: anonymous}))
	from := names(t, s)[0]
	var tagged atomic.Value
	k := &sink{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/2") {
			data, _ := io.ReadAll(r.Body)
			tagged.Store(r.Header.Get("Content-Type") + " sha256:" + sha256Hex(data))
			w.Header().Set("Docker-Content-Digest", "sha256:"+sha256Hex(data))
			w.WriteHeader(http.StatusCreated)
			return
		}
		k.ServeHTTP(w, r)
	}))
	defer srv.Close()
	to := strings.TrimPrefix(srv.URL, "http://") + "/team/app"
	here := LocalPlatform()
	if err := s.Push(ctx, from, to+":2", PushOptions{RegistryOptions: anonymous}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "s390x") || !strings.Contains(err.Error(), "PushOptions.Platform") {
		t.Errorf("the whole index: %v", err)
	}
	if err := s.Push(ctx, from, to+":2", PushOptions{RegistryOptions: anonymous, Platform: &ocispec.Platform{OS: "linux", Architecture: "mips"}}); !errors.Is(err, ErrPlatform) {
		t.Errorf("a platform that it has not: %v", err)
	}
	if err := s.Push(ctx, from, to+":2", PushOptions{RegistryOptions: anonymous, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a platform that was not pulled: %v", err)
	}
	if got := tagged.Load(); got != nil {
		t.Errorf("the tag is %v", got)
	}
	if err := s.Push(ctx, from, to+"@"+h.tag.Digest.String(), PushOptions{RegistryOptions: anonymous, Platform: &here}); !errors.Is(err, ErrDigest) {
		t.Errorf("by the digest of the index: %v", err)
	}
	if err := s.Push(ctx, from, to+":2", PushOptions{RegistryOptions: anonymous, Platform: &here}); err != nil {
		t.Error(err)
	}
	if got, want := tagged.Load(), ocispec.MediaTypeImageManifest+" "+own.Digest.String(); got != want {
		t.Errorf("the tag is %v, want %v", got, want)
	}
}

// A context that ends between two layers ends the pull as well: the layers that were not begun are not there.
func TestPullCancelledBetween(t *testing.T) {
	s, far := openStore(t, Options{Limits: Limits{Parallel: 1}}), openStore(t, Options{})
	one, two := plain(layer(t, file("1", ""))), plain(layer(t, file("2", "")))
	putImage(t, s, "near", one, two)
	img := putImage(t, far, "far", one, two, plain(layer(t, file("3", ""))))
	name := (&shelf{s: far, tag: img.Descriptor}).serve(t)
	why := errors.New("the user went away")
	ctx, cancel := context.WithCancelCause(context.Background())
	_, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, Progress: func(p Progress) {
		if p.Cached { // layers that the store has take no notice of the context
			cancel(why)
		}
	}})
	if !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if f, err := s.Repair(context.Background()); err != nil || len(f) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// Mirrors are asked first, and the registry where they have nothing.
func TestMirrors(t *testing.T) {
	ctx := context.Background()
	h, _ := newShelf(t)
	name := h.serve(t)
	host, _, _ := strings.Cut(name, "/")
	empty := (&shelf{s: openStore(t, Options{})}).serve(t)
	emptyHost, _, _ := strings.Cut(empty, "/")
	for what, c := range map[string]struct {
		name    string
		mirrors map[string][]string
	}{
		"mirror has it":     {"registry.invalid/team/app:1", map[string][]string{"registry.invalid": {host}}},
		"second has it":     {"registry.invalid/team/app:1", map[string][]string{"registry.invalid": {emptyHost, host}}},
		"only the registry": {name, map[string][]string{host: {emptyHost}}},
	} {
		s := openStore(t, Options{})
		o := anonymous
		o.Mirrors = c.mirrors
		if img, err := s.Pull(ctx, c.name, PullOptions{RegistryOptions: o}); err != nil || img.Name != c.name {
			t.Errorf("%s: %v, %v", what, img, err)
		}
	}
}

// TLS with an authority of one's own, basic authentication, and credentials of docker login.
func TestPullTLSAndLogin(t *testing.T) {
	ctx := context.Background()
	h, _ := newShelf(t)
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == "me" && p == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "https://")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	trust := &tls.Config{RootCAs: pool}
	login := func(user, password string) func(context.Context, string) (string, string, error) {
		return func(_ context.Context, registry string) (string, string, error) {
			if registry != host {
				t.Errorf("credentials for %s", registry)
			}
			return user, password, nil
		}
	}
	docker := t.TempDir()
	if err := os.WriteFile(docker+"/config.json", []byte(`{"auths":{"`+host+`":{"auth":"bWU6c2VjcmV0"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", docker)
	for what, c := range map[string]struct {
		o  RegistryOptions
		ok bool
	}{
		"login":             {RegistryOptions{TLS: trust, Credentials: login("me", "secret")}, true},
		"docker login":      {RegistryOptions{TLS: trust}, true},
		"wrong password":    {RegistryOptions{TLS: trust, Credentials: login("me", "wrong")}, false},
		"anonymous":         {RegistryOptions{TLS: trust, Anonymous: true}, false},
		"unknown authority": {RegistryOptions{Credentials: login("me", "secret"), Attempts: 1}, false},
	} {
		s := openStore(t, Options{})
		_, err := s.Pull(ctx, host+"/team/app:1", PullOptions{RegistryOptions: c.o})
		if (err == nil) != c.ok || !c.ok && what != "unknown authority" && !errors.Is(err, ErrUnauthorized) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password is in %v", what, err)
		}
	}
}

// Who does not speak TLS is spoken to without only on this machine, or on request.
func TestPlainHTTP(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.8.9.10": true, "[::1]:5000": true, "[::1]": true,
		"docker.io": false, "192.168.0.1:5000": false, "localhost.example.org": false, "127.0.0.1.example.org": false} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	// A registry elsewhere, at an address of this machine.
	h, _ := newShelf(t)
	port := strings.Split(strings.Split(h.serve(t), ":")[1], "/")[0]
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
	}}
	defer transport.CloseIdleConnections()
	o := RegistryOptions{Anonymous: true, Attempts: 1, Transport: transport}
	s := openStore(t, Options{})
	if _, err := s.Pull(context.Background(), "registry.example.org/team/app:1", PullOptions{RegistryOptions: o}); err == nil {
		t.Error("spoken to without TLS")
	}
	o.PlainHTTP = true
	if _, err := s.Pull(context.Background(), "registry.example.org/team/app:1", PullOptions{RegistryOptions: o}); err != nil {
		t.Error(err)
	}
}

// Two pulls of one image share the work, and neither disturbs the other.
func TestPullTogether(t *testing.T) {
	h, big := newShelf(t)
	var fetched atomic.Int32
	h.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, sha256Hex(big)) {
			fetched.Add(1)
		}
		return false
	}
	name := h.serve(t)
	s := openStore(t, Options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.Pull(context.Background(), name, PullOptions{RegistryOptions: anonymous}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := fetched.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	before := listing(t, s)
	if _, err := Open(s.dir, Options{}); err != nil {
		t.Error(err)
	}
	if after := listing(t, s); !maps.Equal(before, after) {
		t.Error("opening it changed it")
	}
}
