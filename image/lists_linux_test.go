package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A list of referrers costs no more memory than its text may, whether the registry lists them itself or by a tag, redirects or not; and it ends.
func TestReferrersOfManyBytes(t *testing.T) {
	from, img := signed(t)
	short := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`
	// Their decoder would refuse these for what the elements are; it must not come to that.
	many := `{"schemaVersion":2,"manifests":[1` + strings.Repeat(",1", maxReferrers) + `]}`
	deep := `{"schemaVersion":2,"manifests":` + strings.Repeat("[", maxDocDepth) + strings.Repeat("]", maxDocDepth) + `}`
	long := strings.Repeat(" ", maxManifest) + short
	answer := func(w http.ResponseWriter, text string) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		fmt.Fprint(w, text)
		return true
	}
	for name, c := range map[string]struct {
		before func(h *shelf, w http.ResponseWriter, r *http.Request) bool
		want   error
	}{
		"many": {func(_ *shelf, w http.ResponseWriter, _ *http.Request) bool { return answer(w, many) }, ErrDocument},
		"deep": {func(_ *shelf, w http.ResponseWriter, _ *http.Request) bool { return answer(w, deep) }, ErrDocument},
		"long": {func(_ *shelf, w http.ResponseWriter, _ *http.Request) bool { return answer(w, long) }, ErrDocument},
		"redirected": {func(_ *shelf, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/elsewhere" {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return true
			}
			return answer(w, many)
		}, ErrDocument},
		"without end": {func(_ *shelf, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Link", "<"+r.URL.Path+"?more>; rel=next")
			return answer(w, short)
		}, nil},
		"by a tag": {func(_ *shelf, w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/referrers/") {
				http.Error(w, "", http.StatusNotFound)
				return true
			}
			return answer(w, many)
		}, ErrDocument},
	} {
		h := &shelf{s: from, tag: img.Descriptor}
		h.before = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") && !strings.Contains(r.URL.Path, "/manifests/sha256-") && r.URL.Path != "/elsewhere" {
				return false
			}
			return c.before(h, w, r)
		}
		ref := h.serve(t)
		_, err := openStore(t, Options{}).Pull(context.Background(), ref, PullOptions{RegistryOptions: anonymous, Referrers: true})
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A registry that answers whatever it is asked with a page of its own has no list: the image comes without referrers.
func TestReferrersOfNoList(t *testing.T) {
	from, img := signed(t)
	h := &shelf{s: from, tag: img.Descriptor}
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, "/referrers/"):
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>welcome</html>")
		case strings.Contains(r.URL.Path, "/manifests/sha256-"):
			http.Error(w, "", http.StatusNotFound)
		default:
			return false
		}
		return true
	}
	if _, err := openStore(t, Options{}).Pull(context.Background(), h.serve(t), PullOptions{RegistryOptions: anonymous, Referrers: true}); err != nil {
		t.Error(err)
	}
}

// A name of an image cannot begin a line in a message, and an error beside another is not lost.
func TestErrorLines(t *testing.T) {
	left := &fs.PathError{Op: "unlink", Path: "a\nroot login ok", Err: fs.ErrPermission}
	cause := because(ErrBadName, "x\ny\r")
	for _, c := range []struct {
		err  error
		want []string
	}{
		{fail("unpack", "app", cause), []string{`image: unpack app: bad file name: x\ny\r`}},
		{fail("unpack", "app", errors.Join(cause, left)), []string{`image: unpack app: bad file name: x\ny\r`, `image: unpack app: unlink a\nroot login ok: permission denied`}},
		{fail("unpack", "app", fmt.Errorf("a\nb: %w", &Error{Op: "x", Err: cause})), []string{`image: unpack app: a\nb: image: x: bad file name: x\ny\r`}},
		{layerError("sha256:1", errors.Join(&Error{Op: "unpack", Err: cause}, left)), []string{`image: unpack: layer sha256:1: bad file name: x\ny\r`, `image: unpack: layer sha256:1: unlink a\nroot login ok: permission denied`}},
		{&Error{Op: "x", Err: errors.Join(cause, left)}, []string{`image: x: bad file name: x\ny\r`, `unlink a\nroot login ok: permission denied`}},
	} {
		if got := c.err.Error(); got != strings.Join(c.want, "\n") || !errors.Is(c.err, ErrBadName) {
			t.Errorf("got\n%s\nwant\n%s", got, strings.Join(c.want, "\n"))
		}
	}
}
