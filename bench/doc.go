// Command bench measures how long containers take from start to end, beside the floor that the kernel sets and beside
// other engines, all interleaved in random order in one run.
//
//	go run ./bench [compare]   the table: caisson in-process and as a program, two floors in C, crun, runc, bubblewrap,
//	                           unshare; with and without cgroups; back to back and with idle gaps; two payloads
//	go run ./bench probe       what each engine's container is made of, and where they differ
//	go run ./bench steps       what each system call of floor B takes
//	go run ./bench throughput  starts per second with one and two starters
//	go run ./bench heap        latency against the size of the host program's heap
//	go run ./bench mounts      latency against the number of mounts on the host
//	go run ./bench memory      heap, goroutines, threads and descriptors that a running container costs, and memory of 1,000
//	go run ./bench pauses      pauses of the host program while containers start
//	go run ./bench pool        a command in a container that was made ready before, and the price of that
//	go run ./bench judge       programs per second through the judge of the examples over HTTP, beside its library alone
//	go run ./bench exec        a further process in a running container, beside crun exec and runc exec
//	go run ./bench life        how long it takes to freeze, thaw and kill a container, beside crun and runc
//	go run ./bench stats       processor time of reading the figures of 1,000 groups, beside containerd/cgroups
//	go run ./bench net         attaching to a bridge and publishing ports as the first, the second and the 1,000th, throughput and requests, names,
//	                           memory, an ordinary user's container by pasta; beside CNI's plugins, netavark and aardvark-dns (of PATH, or what
//	                           $NETAVARK and $AARDVARK_DNS name), Docker ($DOCKER, $DOCKERD), a script's ip and nft, and a plain pair of devices; -parts picks some (iperf3, wrk)
//	go run ./bench image       images unpacked, pulled, pushed, saved, loaded, committed; snapshots, rebuilds and starts of them: beside umoci,
//	                           skopeo, podman, buildah, containerd, curl and tar
//	go run ./bench oci         the commands run, create with start and delete, and exec of examples/ocirun beside those of crun and runc on the same
//	                           bundle, the size of the program and its memory
//	go run ./bench hostwork    time and allocations of the host's part alone, with a CPU profile
//
// It needs root and a C compiler (make -C bench tools builds the floors). The floors are functions of one long-lived
// C process; they do the kernel's part of what [caisson.Container.Explain] lists, with lists of masks, mounts and
// capabilities derived from it and with the same compiled seccomp filter. They keep no root directory open for the
// caller, register with no keeper and know no errors: what a library does beyond that counts against caisson.
//
// crun and runc get a bundle of equal isolation whose root filesystem is bound, not overlaid: less work than caisson
// does by default. Times of programs are taken in the C process around vfork and wait.
package main
