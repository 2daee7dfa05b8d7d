package rootfs

import (
	"os"

	"github.com/caisson-go/caisson/internal/program"
)

// Inside is the plan of a process that has entered a container's mount namespace already, and whose current directory is
// the root: there is nothing to make, but paths are to be opened.
func Inside(f Features) *Plan { return InsideWith(f, nil) }

// InsideWith is Inside with files that [Plan.WriteFiles] writes.
func InsideWith(f Features, files []File) *Plan {
	return &Plan{layout: &Layout{Files: files}, env: Env{Features: f}, files: map[string]*os.File{}, at: program.Cwd(), inRoot: true}
}

// WriteFiles emits that the files are written below the current directory, which is the root.
func (p *Plan) WriteFiles(b *program.Builder) {
	if len(p.layout.Files) == 0 {
		return
	}
	p.words(b)
	b.Umask(0)
	p.writeFiles(b)
}
