package caisson

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/rootfs"
)

// exitProgram is a program of two instructions and a few bytes more: it ends with status 7. There is none that needs less.
func exitProgram() []byte {
	code := map[string][]byte{
		"amd64": {0xb8, 60, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05},               // mov $60,%eax; mov $7,%edi; syscall
		"arm64": {0xa8, 0x0b, 0x80, 0xd2, 0xe0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4}, // mov x8,#93; mov x0,#7; svc #0
	}[runtime.GOARCH]
	machine := map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	const base, head = 0x400000, 64 + 56
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	size := uint64(head + len(code))
	for _, v := range []any{uint16(2), machine, uint32(1), uint64(base + head), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000)} {
		_ = binary.Write(&b, binary.LittleEndian, v) // a buffer takes all
	}
	b.Write(code)
	return b.Bytes()
}

// The start itself takes little of a container's memory: a program that needs none starts in half a MiB.
func TestTinyMemory(t *testing.T) {
	needCgroup(t, cgroups.Memory)
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "exit"), exitProgram(), 0o755); err != nil {
		t.Fatal(err)
	}
	r := result(t, WithRootfs(rootfs.Dir(root).Writable()), WithCommand("/exit"), WithMemory(512<<10))
	if r.Reason != ReasonExited || r.ExitCode != 7 {
		t.Errorf("%v", r)
	}
}
