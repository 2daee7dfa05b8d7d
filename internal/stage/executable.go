//go:build linux

package stage

import (
	"bytes"

	"github.com/caisson-go/caisson/internal/program"
)

// Executable returns a static ELF executable of some kilobytes that runs a program without inputs. It exits with 127
// where an operation fails.
func Executable(p *program.Program) ([]byte, error) {
	mem, err := p.Encode(nil, dataBase, nil, -1)
	if err != nil {
		return nil, err
	}
	exe := bytes.Clone(header())
	for _, o := range dataSizeOffsets {
		putSize(exe[o:], len(mem))
	}
	return append(exe, mem...), nil
}
