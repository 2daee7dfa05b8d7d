//go:build !(amd64 || arm64 || loong64 || mips64le || ppc64le || riscv64)

package linux

// Structures that go to the kernel and come from it are laid out for processors of 64 bits whose first byte is the least:
// this line does not compile on purpose, so that another is refused by the compiler and not by wrong figures.
var _ = caisson_needs_a_64_bit_little_endian_processor
