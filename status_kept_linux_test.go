package caisson

import (
	"bufio"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
)

// The status of a process that nobody collects is known at once, to who is not its parent.
func TestStatusBeforeItIsCollected(t *testing.T) {
	for script, want := range map[string]unix.WaitStatus{"exit 7": 7 << 8, "kill -KILL $$": unix.WaitStatus(unix.SIGKILL)} {
		parent := exec.Command("/bin/sh", "-c", `exec 3<&0; /bin/sh -c 'read x; `+script+`' <&3 & echo $!; exec sleep 1000`) // which collects nobody
		in, err := parent.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := parent.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = parent.Process.Kill()
			_ = parent.Wait()
		}()
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		r := &running{pidfd: stage.NewPidfd(fd), child: &stage.Child{Pid: pid, Pidfd: -1}}
		defer r.pidfd.Close()
		in.Close()
		if !pollPidfd(fd, testutil.Time(30*time.Second)) {
			t.Fatal("the process does not end")
		}
		if st, ok := r.askKernel(); !ok || st != want {
			t.Errorf("%s: status %#x, known %v; want %#x", script, st, ok, want)
		}
	}
}
