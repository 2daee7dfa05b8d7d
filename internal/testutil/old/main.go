// Command old runs a program as on Linux 5.14: system calls, ioctls and flags that came later are answered with ENOSYS, ENOTTY or
// EINVAL, for the program and all that it starts.
//
//	go build -o bin/old ./internal/testutil/old
//	go test -exec "$PWD/bin/old" ./...
//	bin/old -list
//
// A filter sees the registers of a call and no memory. What newer kernels take in structures (mount_setattr, clone3, bpf), by name
// (parameters of fsconfig), or do by themselves (id-mapped tmpfs, files of cgroups) is there still, and Landlock keeps its ABI.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: old COMMAND ARGS... | old -list")
		os.Exit(2)
	}
	if len(os.Args) == 2 && os.Args[1] == "-list" {
		fmt.Printf("every system call from number %d on: %v\n", firstNewCall, syscall.Errno(enosys))
		for _, n := range later() {
			fmt.Printf("%s, of Linux %s: %v\n", n.call, n.since, syscall.Errno(n.errno))
		}
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "old:", err)
		os.Exit(125)
	}
}
