//go:build linux

package examples_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/caisson-go/caisson/image"
)

// registry serves an image as team/app:1, and returns its name.
func registry(t *testing.T) (name, digest string) {
	t.Helper()
	h, digest := served(t)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://") + "/team/app:1", digest
}

// served answers as a registry with one image does.
func served(t *testing.T) (h http.Handler, digest string) {
	t.Helper()
	s, err := image.Open(filepath.Join(t.TempDir(), "store"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	img, err := s.Write(context.Background(), "app", image.ImageSpec{Layers: []image.Layer{image.FSLayer(fstest.MapFS{"f": {Data: []byte("content")}}, image.FSOptions{})}})
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := filepath.Base(r.URL.Path)
		if what == "1" {
			what = img.Descriptor.Digest.String()
		}
		data, err := os.ReadFile(filepath.Join(s.Dir(), "blobs/sha256", strings.TrimPrefix(what, "sha256:")))
		switch {
		case r.URL.Path == "/v2/":
			return
		case err != nil:
			http.NotFound(w, r)
			return
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", img.Descriptor.MediaType)
		}
		w.Header().Set("Docker-Content-Digest", what)
		w.Write(data)
	}), img.Descriptor.Digest.String()
}

func TestPull(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		name, digest := registry(t)
		store := filepath.Join(c.dir, "store")
		r := c.run(t, "pull", "-store", store, "-plain-http", name)
		r.want(t, 0, `^`+digest+`$`, `/team/app:1: layers: 1, \d`)
		if !strings.Contains(r.stderr, " of ") || strings.Contains(r.stderr, "there") {
			t.Errorf("%v", r)
		}
		again := c.run(t, "pull", "-store", store, "-plain-http", name)
		again.want(t, 0, `^`+digest+`$`)
		c.run(t, "pull", "-store", store, "-plain-http", strings.Replace(name, ":1", ":2", 1)).want(t, 1)
	})
}

// TestPullCertificates: a registry with a certificate of one's own, which wants one of its clients, and a mirror, which is shown none.
func TestPullCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	own, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	h, digest := served(t)
	serve := func(ask tls.ClientAuthType, h http.HandlerFunc) (host string, cert []byte) {
		srv := httptest.NewUnstartedServer(h)
		srv.TLS, srv.Config.ErrorLog = &tls.Config{ClientAuth: ask}, log.New(io.Discard, "", 0)
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "https://"), srv.Certificate().Raw
	}
	host, ca := serve(tls.RequireAnyClientCert, h.ServeHTTP)
	mirror, _ := serve(tls.RequestClientCert, func(w http.ResponseWriter, r *http.Request) { // httptest's servers have one certificate
		if len(r.TLS.PeerCertificates) > 0 {
			t.Error("the mirror was shown the certificate")
		}
		http.NotFound(w, r)
	})
	second, _ := serve(tls.NoClientCert, h.ServeHTTP)
	asEach(t, func(t *testing.T, c caller) {
		at := func(name string) string { return filepath.Join(c.dir, name) }
		for name, b := range map[string]pem.Block{"ca": {Type: "CERTIFICATE", Bytes: ca}, "cert": {Type: "CERTIFICATE", Bytes: own}, "key": {Type: "PRIVATE KEY", Bytes: private}} {
			if err := os.WriteFile(at(name), pem.EncodeToMemory(&b), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		pull := func(host string, args ...string) result {
			return c.run(t, "pull", append(append([]string{"-store", at("store")}, args...), host+"/team/app:1")...)
		}
		pull(host).wantErr(t, 1, `certificate`)
		pull(host, "-ca", at("ca")).wantErr(t, 1, `certificate`)
		pull(host, "-ca", at("ca"), "-cert", at("cert"), "-key", at("key")).want(t, 0, `^`+digest+`$`)
		pull(host, "-ca", at("ca"), "-cert", at("cert"), "-key", at("key"), "-mirror", "https://"+mirror).want(t, 0, `^`+digest+`$`)
		pull("registry.invalid", "-ca", at("ca"), "-mirror", "https://"+mirror, "-mirror", "https://"+second).want(t, 0, `^`+digest+`$`, `^registry.invalid/team/app:1: layers: 1`)
		pull(host, "-ca", at("key")).wantErr(t, 1, `no certificate in`)
		pull(host, "-cert", at("cert")).wantErr(t, 1, `client certificate`)
	})
}
