package seccomp

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
)

func init() { children["compat"] = childCompat }

var compatProfiles = map[string]func() *Program{
	"default": func() *Program {
		p, err := DefaultProgram(AMD64, caps.Default)
		if err != nil {
			die("%v", err)
		}
		return p
	},
	"native only": func() *Program { return compiled(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}) },
	"sockets": func() *Program {
		e := uint(77)
		return compiled(&specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"socket", "shmget"}, Action: specs.ActErrno, ErrnoRet: &e}},
		})
	},
}

// A program of a few bytes makes one call by another ABI under a filter, and
// exits with its errno.
func TestKernelOtherABIs(t *testing.T) {
	const killed = -1
	if compatCall(t, "", int80(20, 0)) == killed {
		t.Skip("this kernel makes no 32-bit calls (CONFIG_IA32_EMULATION)")
	}
	for _, test := range []struct {
		name, profile string
		code          []byte
		want          int
	}{
		{"i386 getpid", "default", int80(20, 0), 0},
		{"i386 mount", "default", int80(21, 0), 1},
		{"i386 clone3", "default", int80(435, 0), 38},
		{"i386 clone of a user namespace", "default", int80(120, 0x10000000), 1},
		{"i386 socket", "default", int80(359, 40), 1},
		{"i386 beyond the tables", "default", int80(472, 0), 38},
		{"i386 not listed", "native only", int80(20, 0), killed},
		{"i386 socket refused", "sockets", int80(359, 0), 77},
		{"i386 socketcall for socket", "sockets", int80(102, 1), 77},
		{"i386 socketcall for bind", "sockets", int80(102, 2), 14},
		{"i386 ipc for shmget", "sockets", int80(117, 23), 77},
		{"i386 ipc for shmget, with a version", "sockets", int80(117, 1<<16|23), 77},
		{"i386 ipc for nothing known", "sockets", int80(117, 0x100|23), 38},
		{"x32 mount", "default", syscall64(x32Bit | 165), 1},
		{"x32 beyond the tables", "default", syscall64(x32Bit | 600), 38},
		{"x32 not listed", "native only", syscall64(x32Bit | 39), killed},
		{"amd64 -1", "native only", syscall64(0xffffffff), 38},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := compatCall(t, test.profile, test.code); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

// compatCall returns the errno, or -1 if SIGSYS ended the program.
func compatCall(t *testing.T, profile string, code []byte) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "call")
	if err := os.WriteFile(path, elf(code), 0o755); err != nil {
		t.Fatal(err)
	}
	out, state := child(t, "compat", "PROFILE="+profile, "PROGRAM="+path)
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() && (status.Signal() == unix.SIGSYS || profile == "") {
		return -1
	}
	if !status.Exited() || out != "" {
		t.Fatalf("%v\n%s", state, out)
	}
	return status.ExitStatus()
}

func childCompat() {
	path := os.Getenv("PROGRAM")
	if make := compatProfiles[os.Getenv("PROFILE")]; make != nil {
		attach(make())
	}
	die("exec: %v", syscall.Exec(path, []string{path}, nil))
}

// int80 calls nr(arg, 0, 0, 0, 0) of i386.
func int80(nr, arg uint32) []byte {
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, nr)          // mov eax, nr
	code = binary.LittleEndian.AppendUint32(append(code, 0xbb), arg)    // mov ebx, arg
	code = append(code, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, 0x31, 0xff) // ecx, edx, esi, edi = 0
	return append(append(code, 0xcd, 0x80), exitWithErrno...)           // int 0x80
}

// syscall64 calls nr(0, ...) of amd64.
func syscall64(nr uint32) []byte {
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, nr)
	code = append(code, 0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2)
	return append(append(code, 0x0f, 0x05), exitWithErrno...)
}

// exitWithErrno ends with status -eax if that is an errno, else 0.
var exitWithErrno = []byte{
	0x31, 0xff, // xor edi, edi
	0xf7, 0xd8, // neg eax
	0x3d, 0x00, 0x10, 0x00, 0x00, // cmp eax, 4096
	0x77, 0x02, // ja +2
	0x89, 0xc7, // mov edi, eax
	0xb8, 0xe7, 0x00, 0x00, 0x00, // mov eax, 231 (exit_group)
	0x0f, 0x05, // syscall
}

// elf wraps code into the smallest executable: one segment, entered at its
// first byte after the headers.
func elf(code []byte) []byte {
	const base, headers = 0x400000, 64 + 56
	le := binary.LittleEndian
	b := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, make([]byte, 9)...)
	b = le.AppendUint16(b, 2)    // ET_EXEC
	b = le.AppendUint16(b, 0x3e) // EM_X86_64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+headers) // entry
	b = le.AppendUint64(b, 64)           // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint64(headers + len(code))
	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // readable, executable
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
