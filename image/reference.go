package image

import (
	"net/netip"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Defaults that [ParseReference] fills in, as Docker does.
const (
	DefaultRegistry = "docker.io"
	DefaultTag      = "latest"
	// officialPrefix is where Docker Hub keeps repositories without an owner.
	officialPrefix = "library/"
)

// Limits of references: those of the distribution specification and of Docker.
const (
	maxReference  = 1024
	maxRepository = 255
	maxTag        = 128
)

// Reference names an image as registries do: docker.io/library/alpine:3.20, localhost:5000/team/app@sha256:….
type Reference struct {
	// Registry is a host with an optional port: docker.io, [::1]:5000.
	Registry string
	// Repository is the path on the registry, in lower case: library/alpine.
	Repository string
	// Tag may be empty with a Digest.
	Tag string
	// Digest fixes the content; with it the tag is a remark.
	Digest digest.Digest
}

// ParseReference reads a reference and completes it as Docker does: "alpine" is docker.io/library/alpine:latest,
// "me/app:1" is docker.io/me/app:1, and the first component is a registry if it has a dot or a colon, is localhost, or has an
// upper-case letter. index.docker.io is docker.io. A reference with a digest gets no tag. Errors match [ErrReference].
func ParseReference(s string) (Reference, error) {
	refuse := func(why string) (Reference, error) {
		return Reference{}, &Error{Op: "parse reference", Object: quoteShort(s), Err: because(ErrReference, "%s", why)}
	}
	if s == "" || len(s) > maxReference {
		return refuse("it is empty or too long")
	}
	if isHex(s) && len(s) == 64 {
		return refuse("64 hexadecimal digits are an image's id, not a name")
	}
	var r Reference
	rest := s
	if before, after, ok := strings.Cut(rest, "@"); ok {
		d, err := ParseDigest(after)
		if err != nil {
			return refuse("what follows @ is no sha256 digest")
		}
		rest, r.Digest = before, d
	}
	r.Registry, rest = splitRegistry(rest)
	if before, tag, ok := cutLast(rest, ":"); ok {
		if !validTag(tag) {
			return refuse("the tag is not 1 to 128 of [A-Za-z0-9_.-], beginning with none of . and -")
		}
		rest, r.Tag = before, tag
	}
	r.Repository = rest
	switch {
	case !validRegistry(r.Registry):
		return refuse("the registry is no host name with an optional port")
	case strings.ToLower(rest) != rest:
		return refuse("a repository's name is in lower case")
	case !validRepository(rest):
		return refuse("the repository is not made of lower-case letters and digits, divided by one of . _ __ - and /")
	}
	if r.Registry == DefaultRegistry && !strings.Contains(rest, "/") {
		r.Repository = officialPrefix + rest
	}
	if len(r.Repository) > maxRepository {
		return refuse("the repository's name is longer than 255 bytes")
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = DefaultTag
	}
	return r, nil
}

// String is the full name, which ParseReference reads as the same reference.
func (r Reference) String() string {
	s := r.Registry + "/" + r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Familiar is the name without what ParseReference fills in: "alpine:3.20". The tag is always told.
func (r Reference) Familiar() string {
	s := r.String()
	if r.Registry == DefaultRegistry {
		s = strings.TrimPrefix(s, DefaultRegistry+"/")
		if short := strings.TrimPrefix(s, officialPrefix); !strings.Contains(short, "/") {
			s = short
		}
	}
	if back, err := ParseReference(s); err != nil || back != r {
		return r.String()
	}
	return s
}

// splitRegistry divides at the first slash, if what stands before it is a host.
func splitRegistry(s string) (registry, rest string) {
	host, rest, ok := strings.Cut(s, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" && strings.ToLower(host) == host {
		return DefaultRegistry, s
	}
	if host == "index.docker.io" {
		host = DefaultRegistry
	}
	return host, rest
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func validTag(s string) bool {
	return len(s) > 0 && len(s) <= maxTag && only(s, func(c byte) bool { return wordByte(c) || c == '.' || c == '-' }) && s[0] != '.' && s[0] != '-'
}

// validRegistry accepts a host name, an IPv4 address or an IPv6 address in brackets, with an optional port.
func validRegistry(s string) bool {
	host := s
	if strings.HasPrefix(s, "[") {
		var ok bool
		if host, s, ok = strings.Cut(s[1:], "]"); !ok || host == "" || s != "" && s[0] != ':' {
			return false
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || a.Zone() != "" {
			return false
		}
		_, port, ok := strings.Cut(s, ":")
		return !ok || validPort(port)
	}
	host, port, ok := strings.Cut(host, ":")
	if ok && !validPort(port) || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			!only(label, func(c byte) bool { return c != '_' && wordByte(c) || c == '-' }) {
			return false
		}
	}
	return true
}

func validPort(s string) bool {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || len(s) > 5 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n > 0 && n < 1<<16
}

// validRepository is the grammar of the distribution specification:
// [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func validRepository(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !validComponent(part) {
			return false
		}
	}
	return true
}

func validComponent(s string) bool {
	for {
		n := 0
		for n < len(s) && alnum(s[n]) {
			n++
		}
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		switch {
		case strings.HasPrefix(s, "__"):
			s = s[2:]
		case s[0] == '.' || s[0] == '_':
			s = s[1:]
		case s[0] == '-':
			s = strings.TrimLeft(s, "-")
		default:
			return false
		}
	}
}

func alnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func wordByte(c byte) bool { return alnum(c) || c >= 'A' && c <= 'Z' || c == '_' }

func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	return only(s, func(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' })
}

func quoteShort(s string) string { return "\"" + shown(strings.ToValidUTF8(s, "?")) + "\"" }

// ParseDigest reads a digest of the form sha256:<64 hexadecimal digits>, the only algorithm of the store. Nothing else
// ever becomes the name of a file. Errors match [ErrDocument].
func ParseDigest(s string) (digest.Digest, error) {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hex) != 64 || !isHex(hex) {
		return "", because(ErrDocument, "%s is not a sha256 digest", quoteShort(s))
	}
	return digest.Digest(s), nil
}
