//go:build linux

package stage

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
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

// A start that finds the keeper dead puts another in its place, whose socket can have the number of the first one's: who sees the death of the first
// one then leaves the other alone, since the end of its socket would have it kill everything.
func TestKeeperOutlivesTheDeathOfTheOneBefore(t *testing.T) {
	k := &theKeeper
	c := waitingToBeKept(t)
	release, err := Keep(c.Pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	k.mu.Lock()
	first, sock := k.pid, k.sock
	unix.Kill(first, unix.SIGKILL)
	p := []unix.PollFd{{Fd: int32(sock)}}
	if n, err := unix.Poll(p, 60_000); n != 1 {
		t.Errorf("%v", err)
	}
	var below []int // so that the next socket has the same number
	for {
		fd, err := unix.FcntlInt(uintptr(sock), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			break
		}
		if below = append(below, fd); fd > sock {
			break
		}
	}
	err = k.register(slices.Index(k.slots, c.Pidfd), c.Pidfd) // as Keep does
	same, second := k.sock == sock, k.pid
	k.mu.Unlock()
	for _, fd := range below {
		unix.Close(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	if alive := gone([]int{first}, time.Minute); len(alive) > 0 {
		t.Fatal("the first one lives")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // its death has been seen when nobody waits for it
		if err := unix.Waitid(unix.P_PID, first, nil, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); err == unix.ECHILD {
			break
		} else if time.Now().After(end) {
			t.Fatal("nobody collects it")
		}
	}
	other, err := Keep(c.Pidfd) // after who saw it, or before
	if err != nil {
		t.Fatal(err)
	}
	other()
	if alive := gone([]int{c.Pid, second}, 100*time.Millisecond); len(alive) != 2 {
		t.Errorf("the same number: %v; of the kept process and the second keeper live %v", same, alive)
	}
}

// What cannot be kept is an error, whether there is a keeper or not.
func TestKeepNothing(t *testing.T) {
	k := &keeper{sock: -1}
	done := make(chan error, 1)
	go func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		done <- k.register(0, 1<<20)
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for what the keeper does not say")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sock >= 0 {
		k.stop()
	}
}

// waiting is a process that waits for the end of its socket.
func waitingToBeKept(t *testing.T) *Child {
	t.Helper()
	b := program.NewBuilder(false)
	b.Setsid()
	EmitWait(b)
	b.ExitGroup(0)
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Start(Config{Program: p, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		c.Conn.Close()
		unix.Close(c.Pidfd)
	})
	return c
}
