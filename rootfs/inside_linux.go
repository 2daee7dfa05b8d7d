package rootfs

import "github.com/caisson-go/caisson/internal/program"

// Inside is the plan of a process that has entered a container's mount namespace already, and whose current directory is
// the root: there is nothing to make, but paths are to be opened.
func Inside(f Features) *Plan {
	return &Plan{env: Env{Features: f}, at: program.Cwd(), inRoot: true}
}
