package image

import (
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LocalPlatform is the platform of this machine: linux, and the architecture that this program was built for.
func LocalPlatform() ocispec.Platform {
	p := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	return normalPlatform(p)
}

// ParsePlatform reads os/architecture[/variant], such as linux/arm64 or linux/arm/v7, or an architecture alone.
func ParsePlatform(s string) (ocispec.Platform, error) {
	parts := strings.Split(s, "/")
	var p ocispec.Platform
	switch len(parts) {
	case 1:
		p = ocispec.Platform{OS: "linux", Architecture: parts[0]}
	case 2:
		p = ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	case 3:
		p = ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	}
	if p.OS == "" || p.Architecture == "" || len(parts) == 3 && p.Variant == "" || !only(strings.Join(parts, ""), func(c byte) bool { return wordByte(c) || c == '.' || c == '-' }) {
		return p, &Error{Op: "parse platform", Object: quoteShort(s), Err: ErrPlatform, Remedy: "write it as linux/arm64 or linux/arm/v7"}
	}
	return normalPlatform(p), nil
}

// normalPlatform gives each platform one spelling.
func normalPlatform(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if p.Variant != "" && p.Variant[0] >= '0' && p.Variant[0] <= '9' {
		p.Variant = "v" + p.Variant
	}
	switch {
	case p.Architecture == "arm64" && p.Variant == "v8", p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	}
	return p
}

// platformRank says how well an image serves a platform: 0 not at all, more is better. A variant runs what earlier ones run.
func platformRank(want, have ocispec.Platform) int {
	want, have = normalPlatform(want), normalPlatform(have)
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return 0
	}
	switch {
	case want.Variant == have.Variant:
		return 100
	case have.Variant == "":
		return 1
	case len(have.Variant) == 2 && len(want.Variant) == 2 && have.Variant[1] < want.Variant[1]:
		return 2 + int(have.Variant[1]-'0')
	}
	return 0
}

// platformText is os/architecture/variant.
func platformText(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// choosePlatform returns the descriptor that serves best, or nil. Where an index says nothing about platforms and has
// one image, that is the one.
func choosePlatform(list []ocispec.Descriptor, want ocispec.Platform) *ocispec.Descriptor {
	var best *ocispec.Descriptor
	rank := 0
	for i, d := range list {
		if d.Platform == nil {
			continue
		}
		if r := platformRank(want, *d.Platform); r > rank {
			best, rank = &list[i], r
		}
	}
	if best == nil && len(list) == 1 && list[0].Platform == nil {
		return &list[0]
	}
	return best
}
