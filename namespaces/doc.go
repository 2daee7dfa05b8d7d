// Package namespaces makes, joins, keeps and inspects Linux namespaces: what a process sees as the mount tree, the process
// ids, the network, System V IPC, the host name, the user ids, the cgroup tree and the clocks (namespaces(7)). It is
// useful alone; nothing in it needs a container.
//
// # Start a process
//
// [Command] is for namespaces what os/exec is for processes. Its zero [Set] asks for new namespaces of every kind, and
// what is to be shared is said:
//
//	cmd := namespaces.Command("sh", "-c", "hostname; id; ps ax")
//	cmd.Set = namespaces.Set{Hostname: "box", Net: namespaces.Host()}
//	cmd.MountProc = true
//	cmd.Stdout = os.Stdout
//	if err := cmd.Run(); err != nil {
//		log.Fatal(err)
//	}
//
// It needs no privilege: the new user namespace gives what the others take. Each kind is [New], the [Host]'s, or
// an existing one by path, process or open file ([JoinPath], [JoinPID], [JoinFile]). [Cmd.Explain] prints the system calls
// beforehand. The process keeps the host's files and is not confined otherwise: this is no sandbox.
//
// # Run a function
//
// [Do] calls a Go function inside existing or new mount, network, ipc, uts or cgroup namespaces, on a thread that is thrown
// away afterwards, so that no other goroutine ever runs there:
//
//	err := namespaces.Do(func() error {
//		l, err := net.Listen("tcp", "127.0.0.1:80")
//		...
//	}, namespaces.In(namespaces.Net, namespaces.JoinPath("/run/netns/blue")))
//
// The kernel lets a process with several threads enter neither a user nor a time namespace (setns(2)), and nobody its own
// pid namespace; [Do] refuses them. [DoWithChildrenInPID] is for children.
//
// # Keep and find
//
// A namespace lives as long as a process is in it, a file of it is open or mounted. [Open], [Of], [OfPIDFD] and [Current]
// open one; [KindOf], [IDOf], [Same], [Parent], [OwningUser] and [OwnerUID] tell about it. [Pin] mounts one on a path,
// the only call of this package that changes the caller's mount namespace.
//
// # User ids
//
// A user namespace maps ids ([IDMaps]). [AutoIDMaps] chooses the maps: subordinate ids of /etc/subuid and /etc/subgid
// for a user who has some, one id otherwise, and for root a range that nobody else has. [WriteMaps] sets them, with
// the help of newuidmap(1) where the kernel demands it.
//
// # What is possible here
//
// [Probe] finds out by doing which kinds this kernel and this user may make, with the reason and the remedy where not.
//
//	kind     Linux   needs, unless in a new user namespace
//	mount    2.4.19  CAP_SYS_ADMIN
//	uts      2.6.19  CAP_SYS_ADMIN
//	ipc      2.6.19  CAP_SYS_ADMIN
//	pid      2.6.24  CAP_SYS_ADMIN
//	network  2.6.29  CAP_SYS_ADMIN
//	user     3.8     nothing, but the machine's policy may forbid it
//	cgroup   4.6     CAP_SYS_ADMIN
//	time     5.6     CAP_SYS_ADMIN; CAP_SYS_TIME for offsets
//
// # Errors
//
// Wishes that are wrong on any machine are refused before anything is made, all faults at once, and match [ErrInvalid]. What the
// kernel refused is an [*Error] with the operation, its object, the errno for errors.Is, and a remedy where one is
// known. On other systems than Linux the package compiles, and calls that need the kernel return errors that match
// errors.ErrUnsupported.
//
// All functions may be called from many goroutines at once.
package namespaces
