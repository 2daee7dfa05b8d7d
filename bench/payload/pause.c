// A program that waits until it is killed, without a C library.
__attribute__((naked, noreturn, used)) void _start(void) {
#if defined(__x86_64__)
	__asm__("1: mov $34,%eax\n\tsyscall\n\tjmp 1b");
#elif defined(__aarch64__)
	__asm__("1: mov x0,#0\n\tmov x1,#0\n\tmov x2,#0\n\tmov x3,#0\n\tmov x4,#0\n\tmov x8,#73\n\tsvc #0\n\tb 1b"); // ppoll(NULL, 0, NULL, NULL)
#else
#error "write pause() for this architecture"
#endif
}
