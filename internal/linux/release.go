package linux

import (
	"fmt"
	"strconv"
	"strings"
)

// Release is the part of a kernel release that is compared: "6.1.0-56-amd64" is {6, 1}.
//
// It serves messages and tests. Whether a feature exists is asked of the kernel itself, because vendors carry
// features back and seccomp profiles take them away.
type Release struct {
	Major, Minor int
}

// ParseRelease reads the release string of uname(2). At least major and minor number must be there; what
// follows them is ignored.
func ParseRelease(s string) (Release, error) {
	major, rest, ok := strings.Cut(s, ".")
	if !ok {
		return Release{}, fmt.Errorf("kernel release %q: no minor number", clip(s))
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	var r Release
	var err error
	if r.Major, err = releaseNumber(major); err == nil {
		r.Minor, err = releaseNumber(rest)
	}
	if err != nil {
		return Release{}, fmt.Errorf("kernel release %q: %w", clip(s), err)
	}
	return r, nil
}

func releaseNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err
}

func clip(s string) string { return s[:min(len(s), 80)] }

// AtLeast reports whether r is major.minor or newer.
func (r Release) AtLeast(major, minor int) bool {
	return r.Major > major || r.Major == major && r.Minor >= minor
}

// String is "major.minor".
func (r Release) String() string { return strconv.Itoa(r.Major) + "." + strconv.Itoa(r.Minor) }
