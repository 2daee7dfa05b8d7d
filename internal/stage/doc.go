// Package stage starts processes that perform a program (package program) and then execute a command.
//
// How a start goes:
//
//	host program                          stage (nothing of the host is mapped)
//	------------                          --------------------------------------
//	encode the program into a memfd
//	clone3(VM|VFORK|PIDFD|NEWPID...) ───▶ child borrows the host's memory for ~0.1 ms:
//	  (the calling thread waits)            write its own id maps, keep a few descriptors,
//	clone3 returns  ◀───────────────────    execveat(memfd)
//	register with the keeper                the interpreter performs the program: namespaces,
//	release the stage ─────────────────▶    mounts, ids, capabilities, seccomp ...
//	wait for a message or end of file       execve(command): the socket closes by itself
//	  ◀── end of file: it runs, or (operation, errno): it failed
//
// Why an executable of its own: a child that keeps sharing the host's memory would hand that memory to the
// container's memory limit (the OOM killer then kills the host), to whoever can trace it, and would change the
// host's dumpable flag and OOM score. Why VFORK always: between clone and exec the kernel spares a vfork child
// from the OOM killer. Why no re-exec of the host's binary: it costs a second Go start and the host's size.
package stage
