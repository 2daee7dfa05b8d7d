package image

import (
	"strings"
	"unicode/utf8"
)

// Bounds of the kernel: a path with its final null byte, a component.
const (
	maxPath      = 4096
	maxComponent = 255
)

// Marks of deletion in layers (image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // aufs kept its own files under such names
	whiteoutOpaque = ".wh..wh..opq"
)

// entryPath turns the name of an entry into a path beneath the root of its layer, without a leading slash, "." components and doubled
// slashes; "" is the root itself. A name with ".." is refused, wherever it may lead.
func entryPath(name string, depth int64, anyNames bool) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", because(ErrBadName, "null byte")
	}
	if !anyNames && !utf8.ValidString(name) {
		return "", because(ErrBadName, "not UTF-8; Policy.AnyNames accepts it")
	}
	clean := name
	if !isClean(name) {
		var parts []string
		for p := range strings.SplitSeq(name, "/") {
			if p != "" && p != "." {
				parts = append(parts, p)
			}
		}
		clean = strings.Join(parts, "/")
	}
	if len(clean) >= maxPath {
		return "", because(ErrBadName, "path of %d bytes; at most %d", len(clean), maxPath-1)
	}
	n := int64(0)
	for p := range strings.SplitSeq(clean, "/") {
		n++
		if p == ".." {
			return "", ErrTraversal
		}
		if len(p) > maxComponent {
			return "", because(ErrBadName, "name of %d bytes; at most %d", len(p), maxComponent)
		}
	}
	if n > depth {
		return "", &LimitError{Limit: "Depth", Max: depth, Need: n}
	}
	return clean, nil
}

// isClean says that a name needs no work but the checks.
func isClean(s string) bool {
	if s == "" || s[0] == '/' || s[len(s)-1] == '/' || s == "." {
		return false
	}
	return !strings.Contains(s, "//") && !strings.HasPrefix(s, "./") && !strings.Contains(s, "/./") && !strings.HasSuffix(s, "/.")
}

// splitPath divides a clean path into its directory and its last component.
func splitPath(p string) (dir, base string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// joinInRoot resolves a link's target by its words alone. What comes out is resolved by the kernel, so that it need not be exact.
func joinInRoot(dir, target string) string {
	var parts []string
	if !strings.HasPrefix(target, "/") && dir != "" {
		parts = strings.Split(dir, "/")
	}
	for p := range strings.SplitSeq(target, "/") {
		switch p {
		case "", ".":
		case "..":
			parts = parts[:max(len(parts)-1, 0)]
		default:
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}
