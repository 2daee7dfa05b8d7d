//go:build linux

package examples_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// besideCommands are given at random, of one container that several programs make, use and remove at once.
var besideCommands = [][]string{
	{"create"}, {"create"}, {"start"}, {"start"}, {"run", "-d"}, {"kill", "KILL"}, {"kill", "KILL"}, {"delete"}, {"delete", "--force"}, {"delete", "--force"},
	{"exec", "true"}, {"exec", "true"}, {"exec", "-d", "sleep"}, {"state"}, {"list"}, {"ps"}, {"pause"}, {"resume"}, {"update", "--pids-limit", "100"}, {"events", "--stats"},
}

// Whatever programs do to one container at the same time, each of them ends, and what they leave can be removed. CAISSON_BESIDE is how many commands each of them
// gives; a few hundred find what meets rarely.
func TestOcirunBeside(t *testing.T) {
	n := 12
	if s := os.Getenv("CAISSON_BESIDE"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	c := caller{os.Getuid(), ownDir(t, os.Getuid())}
	forever, group := strconv.Itoa(1_000_000+os.Getpid()), "/caisson-beside-"+strconv.Itoa(os.Getpid())
	r := newRuntime(t, c, func(s *specs.Spec) {
		if s.Process.Args = []string{"sleep", forever}; c.root() {
			s.Linux.CgroupsPath = group
		}
	})
	seed := rand.Uint64()
	t.Log("seed", seed)
	var all sync.WaitGroup
	for i := range 4 {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for range n {
				if err := r.beside(t, besideCommands[rnd.IntN(len(besideCommands))], forever); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for over := false; !over; { // a process that is begun in a container while that is paused waits until somebody resumes it, or ends it
		select {
		case <-done:
			over = true
		case <-time.After(time.Second):
			if err := r.beside(t, []string{"delete", "--force"}, forever); err != nil {
				t.Error(err)
			}
		}
	}
	r.oci(t, "delete", "--force", "x").want(t, 0)
	r.oci(t, "list", "-q").want(t, 0, `^$`)
	if left, err := os.ReadDir(r.state); err != nil && !os.IsNotExist(err) || len(left) > 0 {
		t.Errorf("the state directory has %v, %v", left, err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + group, "/sys/fs/cgroup/*" + group} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	awaitTrue(t, "the end of all processes", func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.HasPrefix(b, []byte("sleep\x00"+forever+"\x00")) {
				return false
			}
		}
		return true
	})
}

// beside gives one command. It may fail, and has to end.
func (r *runtimeOf) beside(t *testing.T, command []string, forever string) error {
	args := append([]string{command[0]}, command[1:]...)
	switch command[0] {
	case "list":
	case "exec", "kill": // what follows the container's name
		last := len(args) - 1
		args = append(args[:last:last], "x", args[last])
		if command[last] == "sleep" {
			args = append(args, forever)
		}
	default:
		args = append(args, "x")
	}
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := r.ociCommand(t, args...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, rerr := os.ReadFile(out.Name())
	switch _, failed := err.(*exec.ExitError); {
	case rerr != nil:
		return rerr
	case err != nil && !failed, cmd.ProcessState.ExitCode() < 0, strings.Contains(string(text), "panic:"), strings.Contains(string(text), "corrupt"):
		return fmt.Errorf("%v: %v\n%.2000s", args, err, text)
	}
	return nil
}
