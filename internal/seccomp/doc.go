// Package seccomp compiles a seccomp profile of the OCI runtime specification
// into a filter for the kernel, in Go alone.
//
// # What a filter is
//
// seccomp(2) attaches to a thread a small program that the kernel runs before
// each of the thread's system calls, and whose answer decides what becomes of
// the call: make it, fail it with an errno, kill the caller, ask a supervisor.
// The program, in classic BPF, can read the call's number, its arguments (as
// numbers: it cannot follow a pointer), and a token for the ABI the call was
// made by. It can only load words, mask them, compare, and jump forward. It is
// inherited by children, kept over execve(2), and can never be taken off.
//
// A profile is a filter as people write it: a default action, and rules that
// give other actions to calls by name, perhaps only if arguments compare as
// the rule says. [Compile] makes a [Program] of it; [Default] is the profile
// containers have unless told otherwise, and [DefaultProgram] its program,
// compiled once. The package computes and attaches nothing: that is the last
// thing a starting container does before execve(2).
//
// # What a profile means
//
// As far as it could, this follows libseccomp and what runc makes of it.
//
//   - Architectures: the native ABI is always covered, and those the profile
//     lists besides. A call by any other ABI kills the process. x32 shares its
//     token with amd64 and is told by bit 30 of the number: where it is not
//     listed, numbers with that bit kill the process. An architecture whose
//     calls no native kernel of ours can run is left out ([Program.Foreign]).
//   - Names: a name the ABI has no call of does nothing there; one that no
//     table has is reported ([Program.Unknown]).
//   - A rule with the default action and errno is left out.
//   - A rule without conditions on arguments beats all rules with conditions
//     for the same call, wherever they stand; the first of several without
//     wins. Among rules with conditions the first that holds wins.
//   - The conditions of a rule must all hold. But if two of them look at the
//     same argument the rule is taken as several rules, one for each
//     condition: any of them suffices.
//   - Arguments are compared as 64-bit unsigned numbers. Under the 32-bit ABIs
//     (x86, ARM) they are 32 bits wide and zero-extended, and a value written
//     as a negative 64-bit number is cut to 32 bits there.
//   - SCMP_CMP_MASKED_EQ: argument & value == valueTwo.
//   - Errno: EPERM if none is given, 4095 at most; for SCMP_ACT_TRACE it is
//     the 16-bit message to the tracer. With other actions it is refused.
//   - Numbers higher than any in the tables answer ENOSYS if the default
//     action is an errno, a kill or a trap, so that a C library newer than
//     the tables falls back to older calls as on an older kernel. Under
//     ALLOW, LOG and TRACE they meet the default action.
//   - SCMP_ACT_NOTIFY cannot be the default action.
//   - On 32-bit x86, rules on socket and System V IPC calls also cover
//     socketcall(2) and ipc(2). Where they look at arguments they cannot
//     ([Program.Partial]).
//   - Unknown actions, operators, flags and architectures are refused by name.
//
// # How the filter is laid out
//
// When a filter is attached the kernel runs it for every number there is, to
// remember which calls are allowed whatever their arguments: attaching costs
// length plus depth times some five hundred. Calls not always allowed pay the
// depth each time. So numbers are not compared one after the other. The calls
// of each ABI are put in order; neighbours with the same fate become one
// range; the ranges are found by halving. Equal tails (answers, the code for
// conditions) stand once, behind all trees. Conditions on one argument are
// themselves ranges of its value.
//
// # Tables
//
// ztable.go has the numbers of amd64, i386, x32, arm64, arm and riscv64, from
// golang.org/x/sys/unix; zprofile.go the rules of github.com/moby/profiles.
// Both are constant data, written by go generate; neither module becomes part
// of a program for it.
//
// Sources: seccomp(2), seccomp_unotify(2), Documentation/userspace-api/
// seccomp_filter.rst, kernel/seccomp.c, config-linux.md of the OCI runtime
// specification, seccomp_rule_add(3).
package seccomp
