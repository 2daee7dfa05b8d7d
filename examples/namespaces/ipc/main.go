// Command ipc shows what an ipc namespace is: System V shared memory, semaphores and queues, and POSIX message queues of
// one's own. They have global numbers instead of file names, so nothing else keeps them apart. See ipc_namespaces(7);
// Linux 2.6.19.
//
//	go run ./examples/namespaces/ipc
//
// Root may make one; anybody else needs a user namespace first, in which he is root.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
)

const key = 0xca15 // any program that knows the number finds the memory

func main() {
	log.SetFlags(0)
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o600)
	if err != nil {
		log.Fatalf("make shared memory: %v", err)
	}
	err = lesson()
	_, rerr := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	if err != nil || rerr != nil {
		log.Fatal(err, rerr)
	}
}

func lesson() error {
	outside, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return err
	}
	cmd := namespaces.Command("cat", "/proc/sysvipc/shm")
	cmd.Set = namespaces.HostSet()
	cmd.Set.IPC = namespaces.New()
	if os.Geteuid() != 0 {
		cmd.Set.User = namespaces.New()
	}
	cmd.Stderr = os.Stderr
	inside, err := cmd.Output()
	if err != nil {
		return err
	}
	fmt.Printf("outside: segment %#x is %s\n", key, found(outside))
	fmt.Printf("inside:  segment %#x is %s, and so is every other: the list has %d entries\n", key, found(inside), strings.Count(string(inside), "\n")-1)
	return nil
}

// found looks for the key in the list of segments, which has it in the first column.
func found(list []byte) string {
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == fmt.Sprint(key) {
			return "there"
		}
	}
	return "missing"
}
