package netns

import (
	"encoding/hex"
	"hash/fnv"
	"net/netip"
	"strings"
)

// validName judges the name of a network or of a pinned namespace, which is also that of a file.
func validName(s string, max int) bool {
	if s == "" || len(s) > max || !alnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// validHost judges the name of a host: parts of at most 63 letters, digits, '-' and '_' (RFC 1123, and what Docker's users
// write).
func validHost(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' {
			return false
		}
		for i := range len(part) {
			if c := part[i]; !alnum(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// deviceName makes the name of a network device from any name: at most 15 bytes.
func deviceName(prefix, name string) string {
	if len(prefix)+len(name) <= 15 && checkDevice(prefix+name) == nil {
		return prefix + name
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return (prefix + hex.EncodeToString(h.Sum(nil)))[:15]
}
