package image

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
