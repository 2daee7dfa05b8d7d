// Command mount shows what a mount namespace is: a table of mounts of one's own. A filesystem mounted inside is seen by
// nobody outside, and goes with the last process inside. See mount_namespaces(7); Linux 2.4.19.
//
//	go run ./examples/namespaces/mount
//
// Root may make one; anybody else needs a user namespace first, in which he is root (Linux 3.8).
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/caisson-go/caisson/namespaces"
)

// script mounts a filesystem in memory on a directory, writes into it, and waits for the end of its input.
const script = `mount -t tmpfs lesson "$1" && echo treasure >"$1/note" && echo ready && cat`

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "lesson-")
	if err != nil {
		log.Fatal(err)
	}
	err = lesson(dir)
	os.Remove(dir)
	if err != nil {
		log.Fatal(err)
	}
}

func lesson(dir string) error {
	stdin, release := io.Pipe()
	stdout, written := io.Pipe()
	cmd := namespaces.Command("sh", "-c", script, "sh", dir)
	cmd.Set = namespaces.HostSet() // everything is the host's
	cmd.Set.Mount = namespaces.New()
	if os.Geteuid() != 0 {
		cmd.Set.User = namespaces.New()
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, written, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	bufio.NewScanner(stdout).Scan() // "ready"

	inside := fmt.Sprintf("/proc/%d", cmd.Pid())
	fmt.Printf("%-9s %-8s %s\n", "", "mounts", dir)
	fmt.Printf("%-9s %-8d %s\n", "outside", mounts("/proc/self", "/"), list(dir))
	fmt.Printf("%-9s %-8d %s\n", "inside", mounts(inside, "/"), list(inside+"/root"+dir)) // what the process sees
	fmt.Printf("mounts on the directory: outside %d, inside %d\n", mounts("/proc/self", dir), mounts(inside, dir))
	release.Close()
	return cmd.Wait()
}

// mounts counts the mounts that a process sees on path or below.
func mounts(proc, path string) (n int) {
	table, _ := os.ReadFile(proc + "/mountinfo")
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], path) {
			n++
		}
	}
	return n
}

func list(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	if len(entries) == 0 {
		return "empty"
	}
	return "holds " + entries[0].Name()
}
