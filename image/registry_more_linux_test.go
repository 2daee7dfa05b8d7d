package image

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
)

// fakeHosts are registries by scheme and host, without a network.
type fakeHosts struct {
	hosts map[string]http.Handler
	mu    sync.Mutex
	asked []string // scheme, host and whether there are credentials
}

func (f *fakeHosts) RoundTrip(r *http.Request) (*http.Response, error) {
	at := r.URL.Scheme + "://" + r.URL.Host
	f.mu.Lock()
	if said := at + " " + fmt.Sprint(r.Header.Get("Authorization") != ""); !slices.Contains(f.asked, said) {
		f.asked = append(f.asked, said)
	}
	f.mu.Unlock()
	h := f.hosts[at]
	if h == nil {
		return nil, errors.New("nobody answers at " + at)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// wants has a registry ask for a user and a password.
func wants(h *shelf, user, password string) *shelf {
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	return h
}

// How a mirror is spoken to is not how the registry is, and nothing that is meant for the one goes to the other.
func TestMirrorsApart(t *testing.T) {
	h, _ := newShelf(t)
	wants(h, "me", "secret")
	empty := &shelf{s: openStore(t, Options{})}
	for name, c := range map[string]struct {
		name, mirror string
		plain        bool
		hosts        map[string]http.Handler
		asked        []string
	}{
		"plain mirror": {"docker.io/team/app:1", "http://mirror.example.org:5000", false,
			map[string]http.Handler{"http://mirror.example.org:5000": empty, "https://registry-1.docker.io": h},
			[]string{"http://mirror.example.org:5000 false", "https://registry-1.docker.io false", "https://registry-1.docker.io true"}},
		"mirror with TLS, plain registry": {"registry.example.org/team/app:1", "https://mirror.example.org", true,
			map[string]http.Handler{"https://mirror.example.org": empty, "http://registry.example.org": h},
			[]string{"https://mirror.example.org false", "http://registry.example.org false", "http://registry.example.org true"}},
		"as the registry": {"registry.example.org/team/app:1", "mirror.example.org", true,
			map[string]http.Handler{"http://mirror.example.org": empty, "http://registry.example.org": h},
			[]string{"http://mirror.example.org false", "http://registry.example.org false", "http://registry.example.org true"}},
	} {
		t.Run(name, func(t *testing.T) {
			net := &fakeHosts{hosts: c.hosts}
			host, _, _ := strings.Cut(c.name, "/")
			o := RegistryOptions{Attempts: 1, PlainHTTP: c.plain, Transport: net, Mirrors: map[string][]string{host: {c.mirror}},
				Credentials: func(_ context.Context, registry string) (string, string, error) {
					if registry != host {
						t.Errorf("credentials for %s", registry)
					}
					return "me", "secret", nil
				}}
			if _, err := openStore(t, Options{}).Pull(context.Background(), c.name, PullOptions{RegistryOptions: o}); err != nil {
				t.Error(err)
			}
			if !slices.Equal(net.asked, c.asked) {
				t.Errorf("asked %q, want %q", net.asked, c.asked)
			}
		})
	}
	for _, bad := range []string{"http://", "ftp://mirror", "http://a/b", "https://http://a", ""} {
		o := RegistryOptions{Anonymous: true, Transport: &fakeHosts{}, Mirrors: map[string][]string{"docker.io": {bad}}}
		if _, err := openStore(t, Options{}).Pull(context.Background(), "a", PullOptions{RegistryOptions: o}); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// secureShelf serves with TLS, to clients that have the certificate, if one is given.
func secureShelf(t *testing.T, h *shelf, client *x509.Certificate) (srv *httptest.Server, host string, clients func() int) {
	t.Helper()
	var mu sync.Mutex
	with := 0
	srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		with += len(r.TLS.PeerCertificates)
		mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	if client != nil {
		pool := x509.NewCertPool()
		pool.AddCert(client)
		srv.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, strings.TrimPrefix(srv.URL, "https://"), func() int { mu.Lock(); defer mu.Unlock(); return with }
}

func tlsFor(host string, c *tls.Config) func(string) *tls.Config {
	return func(at string) *tls.Config {
		if at != host {
			return nil
		}
		return c
	}
}

// testCertificate is one that a client has, signed by itself.
func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: must[*x509.Certificate](t)(x509.ParseCertificate(der))}
}

// A registry that wants a certificate of its clients gets it, and a mirror does not.
func TestClientCertificates(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	own := testCertificate(t)
	h, _ := newShelf(t)
	srv, host, shown := secureShelf(t, h, own.Leaf)
	mirror, mirrorHost, shownToMirror := secureShelf(t, &shelf{s: openStore(t, Options{})}, nil)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	roots.AddCert(mirror.Certificate())
	trust, full := &tls.Config{RootCAs: roots}, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}
	for name, c := range map[string]struct {
		o  RegistryOptions
		ok bool
	}{
		"certificate":    {RegistryOptions{TLS: full}, true},
		"none":           {RegistryOptions{TLS: trust}, false},
		"for a host":     {RegistryOptions{TLS: trust, TLSFor: tlsFor(host, full)}, true},
		"for another":    {RegistryOptions{TLS: trust, TLSFor: tlsFor(mirrorHost, full)}, false},
		"behind mirrors": {RegistryOptions{TLS: trust, TLSFor: tlsFor(host, full), Mirrors: map[string][]string{host: {"https://" + mirrorHost}}}, true},
	} {
		before := shown()
		c.o.Anonymous, c.o.Attempts = true, 1
		_, err := openStore(t, Options{}).Pull(ctx, host+"/team/app:1", PullOptions{RegistryOptions: c.o})
		if (err == nil) != c.ok || c.ok != (shown() > before) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := shownToMirror(); n != 0 {
		t.Errorf("a mirror was shown certificates %d times", n)
	}
}

// roleCredentials is a credential helper of Docker's.
func roleCredentials() {
	host, err := io.ReadAll(os.Stdin)
	if err != nil || len(os.Args) != 2 || os.Args[1] != "get" || string(host) != os.Getenv("HELPS") {
		fmt.Println("credentials not found in native keychain")
		os.Exit(1)
	}
	fmt.Printf(`{"ServerURL":%q,"Username":"me","Secret":"secret"}`, host)
}

// Docker's config.json may name a program that knows user and password.
func TestCredentialHelper(t *testing.T) {
	h, _ := newShelf(t)
	name := wants(h, "me", "secret").serve(t)
	host, _, _ := strings.Cut(name, "/")
	dir := t.TempDir()
	if err := errors.Join(os.Symlink(must[string](t)(os.Executable()), dir+"/docker-credential-caissontest"),
		os.WriteFile(dir+"/config.json", []byte(`{"credHelpers":{"`+host+`":"caissontest"}}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir)
	t.Setenv(testutil.RoleEnv, "credentials")
	for helps, want := range map[string]error{host: nil, "another.example.org": ErrUnauthorized} {
		t.Setenv("HELPS", helps)
		if _, err := openStore(t, Options{}).Pull(context.Background(), name, PullOptions{RegistryOptions: RegistryOptions{Attempts: 1}}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", helps, err, want)
		}
	}
}

// A registry may send its clients to another server for a token, which is given for user and password, or to anybody.
func TestToken(t *testing.T) {
	h, _ := newShelf(t)
	var tokens atomic.Int32
	var host, user string
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			if u, p, _ := r.BasicAuth(); u+":"+p != user || r.FormValue("scope") != "repository:team/app:pull" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			tokens.Add(1)
			fmt.Fprint(w, `{"token":"good"}`)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer good" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="test",scope="repository:team/app:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	name := h.serve(t)
	host, _, _ = strings.Cut(name, "/")
	as := func(user, password string) RegistryOptions {
		return RegistryOptions{Attempts: 1, Credentials: func(context.Context, string) (string, string, error) { return user, password, nil }}
	}
	for _, c := range []struct {
		what, user string
		o          RegistryOptions
		want       error
	}{
		{"user", "me:secret", as("me", "secret"), nil},
		{"wrong password", "me:secret", as("me", "wrong"), ErrUnauthorized},
		{"anybody", ":", RegistryOptions{Attempts: 1, Anonymous: true}, nil},
		{"nobody", "me:secret", RegistryOptions{Attempts: 1, Anonymous: true}, ErrUnauthorized},
		{"token of one's own", "no:body", as("", "good"), nil},
	} {
		user = c.user
		if _, err := openStore(t, Options{}).Pull(context.Background(), name, PullOptions{RegistryOptions: c.o}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if n := tokens.Load(); n != 2 {
		t.Errorf("%d tokens were given", n) // one for all requests of a pull
	}
}

// A registry in trouble is asked again, for documents and for blobs.
func TestPullAfterTrouble(t *testing.T) {
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		h, big := newShelf(t)
		var seen sync.Map
		h.before = func(w http.ResponseWriter, r *http.Request) bool {
			if _, again := seen.LoadOrStore(r.Method+r.URL.Path, true); again || !strings.HasSuffix(r.URL.Path, sha256Hex(big)) && !strings.HasSuffix(r.URL.Path, "/manifests/1") {
				return false
			}
			w.WriteHeader(status)
			return true
		}
		name := h.serve(t)
		once := anonymous
		once.Attempts = 1
		if _, err := openStore(t, Options{}).Pull(context.Background(), name, PullOptions{RegistryOptions: once}); err == nil {
			t.Errorf("%d: no error at the first attempt", status)
		}
		seen.Clear()
		if _, err := openStore(t, Options{}).Pull(context.Background(), name, PullOptions{RegistryOptions: anonymous}); err != nil {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Layers that the registry has in another repository are taken over there, and sent where it does not do that.
func TestPushMounts(t *testing.T) {
	for name, takes := range map[string]bool{"mounted": true, "sent": false} {
		t.Run(name, func(t *testing.T) {
			h, _ := newShelf(t)
			var mu sync.Mutex
			mounted, sent := map[string]bool{}, map[string]bool{}
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				q := r.URL.Query()
				switch {
				case r.Method == http.MethodHead:
					w.WriteHeader(http.StatusNotFound)
				case r.Method == http.MethodPost && takes && q.Get("mount") != "" && q.Get("from") == "team/base":
					mounted[q.Get("mount")] = true
					w.Header().Set("Location", "/v2/team/app/blobs/"+q.Get("mount"))
					w.WriteHeader(http.StatusCreated)
				case r.Method == http.MethodPost:
					w.Header().Set("Location", "/v2/team/app/blobs/uploads/1")
					w.WriteHeader(http.StatusAccepted)
				case r.Method == http.MethodPut:
					io.Copy(io.Discard, r.Body)
					if d := q.Get("digest"); d != "" {
						sent[d] = true
					}
					w.WriteHeader(http.StatusCreated)
				default:
					t.Errorf("%s %s", r.Method, r.URL)
				}
				return true
			}
			name := h.serve(t)
			if err := h.s.Push(context.Background(), "a", name, PushOptions{RegistryOptions: anonymous, MountFrom: []string{"team/base"}}); err != nil {
				t.Fatal(err)
			}
			if takes && (len(mounted) != 3 || len(sent) != 0) || !takes && len(sent) != 3 { // config and two layers
				t.Errorf("mounted %v, sent %v", mounted, sent)
			}
		})
	}
}

// No more layers are fetched or sent at once than Limits.Parallel says, and that many are.
func TestParallel(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := openStore(t, Options{Limits: Limits{Parallel: 2}})
	var blobs []blob
	layers := map[string]bool{}
	for i := range 6 {
		blobs = append(blobs, plain(layer(t, file(fmt.Sprint(i), ""))))
		layers[sha256Hex(blobs[i].data)] = true
	}
	img := putImage(t, s, "a", blobs...)
	for method, do := range map[string]func(name string) error{
		http.MethodGet: func(name string) error {
			_, err := openStore(t, Options{Limits: Limits{Parallel: 2}}).Pull(ctx, name, PullOptions{RegistryOptions: anonymous})
			return err
		},
		http.MethodPut: func(name string) error { return s.Push(ctx, "a", name, PushOptions{RegistryOptions: anonymous}) },
	} {
		var mu sync.Mutex
		now, most := 0, 0
		two, three := make(chan struct{}), make(chan struct{})
		h := &shelf{s: s, tag: img.Descriptor}
		h.before = func(w http.ResponseWriter, r *http.Request) bool {
			if _, hex, ok := strings.Cut(r.URL.Path+r.URL.Query().Get("digest"), "sha256:"); ok && r.Method == method && layers[hex] {
				mu.Lock()
				if now++; now > most {
					if most = now; most == 2 {
						close(two)
					} else if most == 3 {
						close(three)
					}
				}
				mu.Unlock()
				select {
				case <-two:
				case <-ctx.Done():
				}
				select { // a third one would come soon
				case <-three:
				case <-time.After(100 * time.Millisecond):
				}
				mu.Lock()
				now--
				mu.Unlock()
			}
			if method == http.MethodPut {
				(&sink{}).ServeHTTP(w, r)
			}
			return method == http.MethodPut
		}
		if err := do(h.serve(t)); err != nil {
			t.Errorf("%s: %v", method, err)
		}
		mu.Lock()
		if most != 2 {
			t.Errorf("%s: %d at once", method, most)
		}
		mu.Unlock()
	}
}

// An artifact of before artifactType, as many signatures are, is what the media type of its config says.
func TestReferrerOfConfigType(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	img := putImage(t, s, "a", plain(layer(t, file("x", "x"))))
	use := must[*os.File](t)(s.use(ctx))
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Subject: &img.Descriptor}
	m.SchemaVersion = 2
	m.Config = must[ocispec.Descriptor](t)(s.putBlob("application/vnd.test.config.v1+json", []byte("{}")))
	m.Layers = []ocispec.Descriptor{must[ocispec.Descriptor](t)(s.putBlob("application/vnd.test.signature", []byte("signed")))}
	d := must[ocispec.Descriptor](t)(s.putBlob(m.MediaType, must[[]byte](t)(json.Marshal(m))))
	err := s.putImages(ctx, Image{Descriptor: d})
	use.Close()
	if err != nil {
		t.Fatal(err)
	}
	check := func(s *Store, name string) {
		t.Helper()
		for kind, n := range map[string]int{"": 1, "application/vnd.test.config.v1+json": 1, "application/vnd.test.signature": 0} {
			if got, err := s.Referrers(ctx, name, kind); err != nil || len(got) != n || n > 0 && (got[0].Digest != d.Digest || got[0].ArtifactType != "application/vnd.test.config.v1+json") {
				t.Errorf("%q: %+v, %v", kind, got, err)
			}
		}
		if freed, err := s.GC(ctx); err != nil || freed.Blobs != 0 {
			t.Errorf("%+v, %v", freed, err)
		}
	}
	check(s, "a")
	h := &shelf{s: s, tag: img.Descriptor}
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		_, what, ok := strings.Cut(r.URL.Path, "/referrers/")
		if ok {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			json.NewEncoder(w).Encode(newIndex(must[[]ocispec.Descriptor](t)(s.referrers(digest.Digest(what)))))
		}
		return ok
	}
	name, to := h.serve(t), openStore(t, Options{})
	if _, err := to.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, Referrers: true}); err != nil {
		t.Fatal(err)
	}
	check(to, name)
}
