//go:build linux && !amd64 && !arm64

package stage

// The interpreter exists for amd64 and arm64 only: this line does not compile on purpose, so that another
// architecture is refused by the compiler and not by a failing start.
var _ = caisson_needs_amd64_or_arm64
