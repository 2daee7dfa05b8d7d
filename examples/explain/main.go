// Command explain prints what the start of a container does, system call by system call, before anything is done. If
// strace(1) is installed it then starts the container under it, and compares what was said with what is done.
//
//	go run ./examples/explain
//	go run ./examples/explain id -u
//
// A start is a program, compiled beforehand and carried out by a process that has nothing else in it; that is why it
// can be told exactly. Needs Linux 5.14 and no privilege.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/caisson-go/caisson"
)

func main() {
	log.SetFlags(0)
	args := os.Args[1:]
	start := len(args) > 0 && args[0] == "-start"
	if start {
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{"true"}
	}
	var err error
	if start {
		err = run(args)
	} else {
		err = explain(args)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func container(args []string) (*caisson.Container, error) {
	return caisson.New(caisson.WithCommand(args[0], args[1:]...))
}

func run(args []string) error {
	c, err := container(args)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Run(context.Background())
}

func explain(args []string) error {
	c, err := container(args)
	if err != nil {
		return err
	}
	defer c.Close()
	var program bytes.Buffer
	if err := c.Explain(context.Background(), &program); err != nil {
		return err
	}
	os.Stdout.Write(program.Bytes())

	strace, err := exec.LookPath("strace")
	if err != nil {
		fmt.Println("\nstrace is not installed, so this is not compared with a real start.")
		return nil
	}
	seen, err := trace(strace, args)
	if err != nil {
		return err
	}
	return compare(explained(&program), seen)
}

// noise are system calls of this program that no start contains, in great numbers where the host's files are searched
// for private ones (see rootfs.Host). To trace them would take long.
const noise = "newfstatat,getdents64,fcntl,fstat,futex,nanosleep,epoll_pwait,sched_yield,madvise,tgkill,rt_sigreturn"

// trace starts the container, by this program once more, under strace and returns the calls that led to its command.
func trace(strace string, args []string) ([]string, error) {
	dir, err := os.MkdirTemp("", "explain-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log := filepath.Join(dir, "log")
	out, err := exec.Command(strace, append([]string{"-f", "--seccomp-bpf", "-e", "trace=!" + noise, "-o", log, self, "-start"}, args...)...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("start under strace: %w: %s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	return performed(string(text))
}

// compare holds the two lists of calls against each other. What was said and not done are the directories of PATH in which
// the command was not looked for any more, once it was found: looked for by openat2 first, then executed.
func compare(said, done []string) error {
	next := 0
	for i, call := range done {
		for next < len(said) && said[next] != call && said[next] == "openat2" {
			next++
		}
		if next >= len(said) || said[next] != call {
			return fmt.Errorf("call %d is %s, which was not said", i, call)
		}
		next++
	}
	for _, call := range said[next:] {
		if call != "execve" {
			return fmt.Errorf("%s was said and not done", call)
		}
	}
	fmt.Printf("\nstrace saw the same %d calls in the same order.\n", len(done))
	return nil
}
