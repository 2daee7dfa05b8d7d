package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// A registry that stops, wherever, is given up.
func TestPullStalled(t *testing.T) {
	for what, stop := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"before the answer": func(http.ResponseWriter, *http.Request) bool { return true },
		"manifest": func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/")
		},
		"config or layer": func(w http.ResponseWriter, r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") },
		"token": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/token") {
				return true
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=\"test\"", "http://"+r.Host+"/token"))
			w.WriteHeader(http.StatusUnauthorized)
			return false
		},
		"refusal": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				return false
			}
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusForbidden)
			return true
		},
		"referrers": func(w http.ResponseWriter, r *http.Request) bool { return strings.Contains(r.URL.Path, "/referrers/") },
	} {
		t.Run(what, func(t *testing.T) {
			testutil.NoLeaks(t)
			s := openStore(t, Options{})
			h := &shelf{s: openStore(t, Options{})}
			h.tag = putImage(t, h.s, "a", plain(layer(t, file("x", "x")))).Descriptor
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				if !stop(w, r) {
					return what == "token"
				}
				if what != "before the answer" {
					if what != "refusal" {
						w.Header().Set("Content-Length", "100")
						w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
						if d, err := ParseDigest(path.Base(r.URL.Path)); err == nil && what != "referrers" {
							fi := must[os.FileInfo](t)(os.Stat(h.s.blobPath(d)))
							w.Header().Set("Content-Length", fmt.Sprint(fi.Size()))
							w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
						}
					}
					fmt.Fprint(w, "{")
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
				return true
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			o := RegistryOptions{PlainHTTP: true, Anonymous: true, Attempts: 1, stall: 100 * time.Millisecond}
			_, err := s.Pull(ctx, h.serve(t), PullOptions{RegistryOptions: o, Referrers: true})
			if !errors.Is(err, os.ErrDeadlineExceeded) && what != "refusal" || err == nil || ctx.Err() != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// What a registry says is no command for a terminal.
func TestRegistryTextsShown(t *testing.T) {
	h := &shelf{s: openStore(t, Options{})}
	status := 0
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		if status == http.StatusOK {
			w.Header().Set("Content-Type", "application/x\x1b[2J")
		}
		w.Header().Set("Docker-Content-Digest", someDigest)
		w.Header().Set("Content-Length", "5")
		if r.Method == http.MethodHead {
			return true
		}
		text := `{"errors":[{"code":"A\u001b[2J","message":"x\u001b]0;pwn\u0007\u009b2J\nroot login ok\u202e` + strings.Repeat("long", 1000) + `","detail":"\u001b\r"}]}`
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		w.WriteHeader(status)
		fmt.Fprint(w, text)
		return true
	}
	name := strings.TrimSuffix(h.serve(t), ":1")
	s := openStore(t, Options{})
	for _, status = range []int{http.StatusOK, http.StatusForbidden, http.StatusNotFound, http.StatusTeapot} {
		_, err := s.Pull(context.Background(), name, PullOptions{RegistryOptions: RegistryOptions{PlainHTTP: true, Anonymous: true, Attempts: 1}})
		for e := err; e != nil; e = errors.Unwrap(e) {
			if _, ok := e.(foreignError); ok {
				break // what is in it is the registry's
			}
			if text := e.Error(); strings.ContainsFunc(text, unprintable) || len(text) > 3000 {
				t.Errorf("%d: %q", status, text)
			}
		}
		if err == nil {
			t.Error("no error")
		}
	}
	for in, want := range map[string]string{"plain ü \"'\\": "plain ü \"'\\", "\x1b[2J\n\x9b\u202e": `\x1b[2J\n\x9b\u202e`} {
		if got := printable(in); got != want || printable(got) != got {
			t.Errorf("%q: %s", in, got)
		}
	}
	if got := (&Error{Op: "x", Object: "a\x1b", Err: errors.New("one\x1b\ntwo\r")}).Error(); got != "image: x a\\x1b: one\\x1b\\ntwo\\r" {
		t.Errorf("%q", got)
	}
}

// An image that is not there is told with what helps.
func TestDescribeRemedy(t *testing.T) {
	s := openStore(t, Options{})
	_, err := s.Rootfs("alpine").Describe(context.Background(), rootfs.Env{})
	if e := (*Error)(nil); !errors.As(err, &e) || !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "Store.Pull") {
		t.Errorf("%v", err)
	}
}
