//go:build linux

package stage

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// TestMain lets the test binary play a host program that starts processes and is then killed.
func TestMain(m *testing.M) {
	if os.Getenv("STAGE_TEST_HOST") != "" {
		hostMain()
	}
	os.Exit(m.Run())
}

func hostMain() {
	b := program.NewBuilder(false)
	b.Setsid()
	EmitWait(b)
	null := b.Openat(program.Cwd(), "/dev/null", unix.O_RDWR, 0)
	for i := range 3 {
		b.Dup3(null.Result(), i, 0)
	}
	b.CloseRange(3, unix.CLOSE_RANGE_CLOEXEC)
	b.Execve("/bin/sleep", []string{"sleep", "1000"}, nil)
	p, _ := b.Build()
	for range 20 {
		c, err := Start(Config{Program: p, Cgroup: -1})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if _, err := Keep(c.Pidfd); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		c.Conn.Release()
		c.Conn.Recv()
		fmt.Println(c.Pid)
	}
	first := KeeperPid()
	fmt.Println("keeper", first)
	for pid := first; pid == 0 || pid == first; pid = KeeperPid() { // another has what the first one had as soon as it is seen
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Println("successor")
	select {}
}

// startHost starts a host program. The rest of what it says is read from said.
func startHost(t *testing.T) (cmd *exec.Cmd, pids []int, keeperPid int, said *bufio.Scanner) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "STAGE_TEST_HOST=1")
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	sc := bufio.NewScanner(out)
	for said = sc; sc.Scan(); {
		if s, ok := strings.CutPrefix(sc.Text(), "keeper "); ok {
			keeperPid, _ = strconv.Atoi(s)
			return
		}
		pid, err := strconv.Atoi(sc.Text())
		if err != nil {
			t.Fatal(sc.Text())
		}
		pids = append(pids, pid)
	}
	t.Fatal("the host program ended")
	return
}

// gone waits for all pids to have ended (a zombie that nobody has collected yet counts as ended).
func gone(pids []int, d time.Duration) (alive []int) {
	for end := time.Now().Add(d); ; time.Sleep(time.Millisecond) {
		alive = nil
		for _, pid := range pids {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !strings.Contains(string(b), ") Z ") && !strings.Contains(string(b), ") X ") {
				alive = append(alive, pid)
			}
		}
		if len(alive) == 0 || time.Now().After(end) {
			return alive
		}
	}
}

func TestKeeperKillsWhenTheHostIsKilled(t *testing.T) {
	cmd, pids, k, _ := startHost(t)
	if alive := gone(pids, 0); len(alive) != 20 {
		t.Fatalf("alive before: %v", alive)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if alive := gone(append(pids, k), time.Minute); len(alive) > 0 {
		t.Fatalf("alive after the host was killed: %v", alive)
	}
}

func TestKeeperIsReplacedWhenItDies(t *testing.T) {
	cmd, pids, k, said := startHost(t)
	unix.Kill(k, unix.SIGKILL)
	if !said.Scan() || said.Text() != "successor" {
		t.Fatalf("it says %q", said.Text())
	}
	if alive := gone(pids, 0); len(alive) != 20 {
		t.Fatalf("the keeper's death ended containers: alive %v", alive)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if alive := gone(pids, time.Minute); len(alive) > 0 {
		t.Fatalf("alive after the host was killed: %v", alive)
	}
}
