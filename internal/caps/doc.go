// Package caps names the Linux capabilities and computes with sets of them.
//
// Since Linux 2.2 the power of root is cut into capabilities, each a bit that
// lets a thread do one family of privileged things: CAP_NET_ADMIN configures
// the network, CAP_SYS_ADMIN mounts, and so on. A thread has five sets of them:
//
//	effective    what permission checks look at now
//	permitted    what may be made effective
//	inheritable  what may survive execve(2) of a file that asks for it
//	bounding     the ceiling: what no execve(2) can ever give back
//	ambient      what survives execve(2) of an ordinary file
//
// Here a set is a [Set], a bitmask in a uint64, bit n standing for capability
// number n, which is how the kernel prints it in /proc/PID/status (CapEff and
// its kin). The package parses and prints sets, knows the default set of a
// container, packs sets as capset(2) wants them, and reads what the kernel
// knows and what this thread holds. It changes no thread's capabilities.
//
// Sources: capabilities(7), capget(2), PR_CAPBSET_READ in prctl(2),
// include/uapi/linux/capability.h.
package caps
