package seccomp

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// An Arch is a system call ABI: which numbers stand for which calls. A kernel
// speaks its own and those of the older programs it still runs. The zero Arch
// is none.
type Arch uint8

// The ABIs this package has tables for.
const (
	AMD64   Arch = 1 + iota // SCMP_ARCH_X86_64
	I386                    // SCMP_ARCH_X86
	X32                     // SCMP_ARCH_X32: amd64's machine code with 32-bit pointers
	ARM64                   // SCMP_ARCH_AARCH64
	ARM                     // SCMP_ARCH_ARM: 32-bit EABI
	RISCV64                 // SCMP_ARCH_RISCV64
)

const archCount = int(RISCV64)

// x32Bit marks a number as one of the x32 ABI, which has no AUDIT_ARCH token
// of its own and shares AMD64's (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

// A private range holds numbers far above those of the common table.
type private struct{ first, last uint32 }

// archInfo is what the compiler knows of an ABI.
var archInfo = [archCount]struct {
	name    specs.Arch
	goarch  string
	token   uint32 // AUDIT_ARCH_*, seccomp_data.arch (include/uapi/linux/audit.h)
	native  Arch   // the ABI of the kernels that run it
	is32    bool   // arguments are 32 bits wide, zero-extended
	private private
}{
	AMD64 - 1:   {name: specs.ArchX86_64, goarch: "amd64", token: 0xc000003e, native: AMD64},
	I386 - 1:    {name: specs.ArchX86, token: 0x40000003, native: AMD64, is32: true},
	X32 - 1:     {name: specs.ArchX32, token: 0xc000003e, native: AMD64, private: private{512, 547}},
	ARM64 - 1:   {name: specs.ArchAARCH64, goarch: "arm64", token: 0xc00000b7, native: ARM64},
	ARM - 1:     {name: specs.ArchARM, token: 0x40000028, native: ARM64, is32: true, private: private{0xf0001, 0xf0006}},
	RISCV64 - 1: {name: specs.ArchRISCV64, goarch: "riscv64", token: 0xc00000f3, native: RISCV64},
}

// Native returns the ABI this program was built for. On a processor this
// package has no table for it is an error that Is errors.ErrUnsupported.
func Native() (Arch, error) {
	for i, info := range archInfo {
		if info.goarch == runtime.GOARCH && info.goarch != "" {
			return Arch(i + 1), nil
		}
	}
	return 0, fmt.Errorf("seccomp on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
}

// String returns the name the OCI runtime specification has for a.
func (a Arch) String() string {
	if !a.valid() {
		return fmt.Sprintf("Arch(%d)", uint8(a))
	}
	return string(archInfo[a-1].name)
}

// Token returns a's AUDIT_ARCH value, what a filter finds in seccomp_data.arch.
func (a Arch) Token() uint32 { return archInfo[a-1].token }

func (a Arch) valid() bool { return a >= 1 && int(a) <= archCount }

// bit is what every number of the ABI has set.
func (a Arch) bit() uint32 {
	if a == X32 {
		return x32Bit
	}
	return 0
}

// foreign are the specification's other architectures: their calls never
// reach a kernel of ours.
var foreign = [...]specs.Arch{
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64,
	specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390,
	specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchLOONGARCH64,
	specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// parseArch returns the ABI a profile names; 0 for one that is foreign.
func parseArch(name specs.Arch) (Arch, error) {
	for i, info := range archInfo {
		if info.name == name {
			return Arch(i + 1), nil
		}
	}
	for _, f := range foreign {
		if f == name {
			return 0, nil
		}
	}
	return 0, fmt.Errorf("architecture %q: %w", string(name), ErrInvalid)
}
