// Package landlock knows what each version of Landlock can restrict, and how the kernel takes it.
//
// Landlock (landlock(7), Documentation/userspace-api/landlock.rst) lets a process give up rights for itself and its
// children, without privilege: a *ruleset* says which kinds of access it handles; what is handled is denied unless a rule
// allows it. The kernel tells the version of its interface (ABI):
//
//	ABI  Linux  adds
//	1    5.13   files: read, write, execute, make, remove
//	2    5.19   files: move between directories
//	3    6.2    files: truncate
//	4    6.7    TCP: bind and connect, by port
//	5    6.10   files: ioctl on devices
//	6    6.12   scopes: abstract Unix sockets and signals to processes outside
//
// Later versions add logging and kinds of access that this package does not handle.
package landlock
