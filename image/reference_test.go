package image

import (
	"errors"
	"strings"
	"testing"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseReference(t *testing.T) {
	for in, want := range map[string][2]string{ // full, familiar
		"alpine":                          {"docker.io/library/alpine:latest", "alpine:latest"},
		"alpine:3.20":                     {"docker.io/library/alpine:3.20", "alpine:3.20"},
		"me/app":                          {"docker.io/me/app:latest", "me/app:latest"},
		"docker.io/alpine":                {"docker.io/library/alpine:latest", "alpine:latest"},
		"index.docker.io/library/alpine":  {"docker.io/library/alpine:latest", "alpine:latest"},
		"localhost/app":                   {"localhost/app:latest", "localhost/app:latest"},
		"localhost:5000/a/b/c:Tag_1.x-y":  {"localhost:5000/a/b/c:Tag_1.x-y", "localhost:5000/a/b/c:Tag_1.x-y"},
		"[::1]:5000/app":                  {"[::1]:5000/app:latest", "[::1]:5000/app:latest"},
		"[fe80::1]/app":                   {"[fe80::1]/app:latest", "[fe80::1]/app:latest"},
		"Host/app":                        {"Host/app:latest", "Host/app:latest"},
		"quay.io/a__b/c-----d.e:1":        {"quay.io/a__b/c-----d.e:1", "quay.io/a__b/c-----d.e:1"},
		"alpine@" + someDigest:            {"docker.io/library/alpine@" + someDigest, "alpine@" + someDigest},
		"alpine:3@" + someDigest:          {"docker.io/library/alpine:3@" + someDigest, "alpine:3@" + someDigest},
		"library/alpine":                  {"docker.io/library/alpine:latest", "alpine:latest"},
		"docker.io/library/library/a":     {"docker.io/library/library/a:latest", "library/library/a:latest"},
		strings.Repeat("a", 255-8) + ":1": {"docker.io/library/" + strings.Repeat("a", 255-8) + ":1", strings.Repeat("a", 255-8) + ":1"},
	} {
		r, err := ParseReference(in)
		if err != nil || r.String() != want[0] || r.Familiar() != want[1] {
			t.Errorf("%s: %s, %s, %v", in, r, r.Familiar(), err)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, in := range []string{
		"", ":", "/", "@", "a/", "/a", "a//b", "Alpine", "docker.io/Alpine", "alpine:", "alpine:-x", "alpine:.x", "alpine:" + strings.Repeat("a", 129),
		"a___b", "a..b", "a.-b", "-a", "a-", ".a", "a.", "a_", "a b", "a\x00b", "a\n", "alpine@", "alpine@sha256:abc", "alpine@sha512:" + strings.Repeat("a", 128),
		"alpine@" + someDigest + "@" + someDigest, "alpine@sha256:../../../../etc/passwd" + strings.Repeat("a", 41), "alpine@" + strings.ToUpper(someDigest),
		strings.TrimPrefix(someDigest, "sha256:"), "host:/app", "host:0/app", "host:65536/app", "host:1a/app", "[::1/app", "[]/app", "[::1]x/app", "[::1]:/app", "[..10:5]/app",
		"-host.x/app", "host-.x/app", "ho_st.x/app", "a..b.c/app", "../app", "./app", "a/../b", "http://x/app", strings.Repeat("a", 256), "x.y/" + strings.Repeat("a", 2000), "äpfel", "a:b:c",
	} {
		if r, err := ParseReference(in); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %+v, %v", in, r, err)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"alpine", "a/b:c", "localhost:5000/x@" + someDigest, "[::1]:5000/a", "docker.io/library/x", "A/b", "a:b:c", "..", "@", "localhost:5000a..6"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			if !errors.Is(err, ErrReference) || len(err.Error()) > 1000 {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, again := range []string{r.String(), r.Familiar()} {
			if back, err := ParseReference(again); err != nil || back != r {
				t.Fatalf("%q is %+v, but %q is %+v, %v", s, r, again, back, err)
			}
		}
		if strings.Contains(r.Registry+r.Repository, "..") || strings.Contains(r.Tag, "/") || // a tag may have ".."
			strings.ContainsAny(r.String(), " \n\x00\\") {
			t.Fatalf("%q: %q", s, r)
		}
	})
}
