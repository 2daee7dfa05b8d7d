// A program that ends at once, without a C library: what is measured with it is the container, not the payload.
// Linked at a fixed address with one segment; exit_group(0) is all it does.
__attribute__((naked, noreturn, used)) void _start(void) {
#if defined(__x86_64__)
	__asm__("xor %edi,%edi\n\tmov $231,%eax\n\tsyscall\n\thlt");
#elif defined(__aarch64__)
	__asm__("mov x0,#0\n\tmov x8,#94\n\tsvc #0");
#else
#error "write exit_group(0) for this architecture"
#endif
}
