// Command pid shows what a pid namespace is: process numbers of one's own. The first process inside is number 1, sees
// only its descendants, and when it ends the kernel kills them all. See pid_namespaces(7); Linux 2.6.24.
//
//	go run ./examples/namespaces/pid
//
// Root may make one; anybody else needs a user namespace first, in which he is root.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/caisson-go/caisson/namespaces"
)

// script leaves a process behind, in a session of its own as daemons do to outlive those who started them. It ends
// with its input.
const script = `echo "inside, I am process $$ and see these: $(cd /proc && echo [0-9]*)"
setsid sleep 1000 >/dev/null 2>&1 &
echo "inside, I leave process $! behind"
read -r wait || true`

func main() {
	log.SetFlags(0)
	if err := lesson(); err != nil {
		log.Fatal(err)
	}
}

func lesson() error {
	stdin, release := io.Pipe()
	stdout, written := io.Pipe()
	cmd := namespaces.Command("sh", "-c", script)
	cmd.Set = namespaces.HostSet()
	cmd.Set.PID, cmd.Set.Mount = namespaces.New(), namespaces.New()
	if os.Geteuid() != 0 {
		cmd.Set.User = namespaces.New()
	}
	cmd.MountProc = true // /proc shows the pid namespace in which it was mounted
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, written, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdout)
	for range 2 {
		lines.Scan()
		fmt.Println(lines.Text())
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	inside := members(cmd.Pid(), all)
	fmt.Printf("outside, it is process %d of %d, and %d are in its namespace\n", cmd.Pid(), len(all), len(inside))

	release.Close()
	err := cmd.Wait()
	left := 0
	for _, pid := range inside {
		if _, err := os.Stat(pid); err == nil {
			left++
		}
	}
	fmt.Printf("process 1 has ended, and of the %d there are left: %d\n", len(inside), left)
	return err
}

// members picks the processes in the pid namespace of process pid.
func members(pid int, all []string) (l []string) {
	want, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	for _, p := range all {
		if ns, err := os.Readlink(p + "/ns/pid"); err == nil && ns == want {
			l = append(l, p)
		}
	}
	return l
}
