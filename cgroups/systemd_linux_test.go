package cgroups

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
)

// needSystemd skips where no systemd serves this user with cgroup v2.
func needSystemd(t *testing.T) *Manager {
	t.Helper()
	m, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	must := os.Getenv("CAISSON_TEST_SYSTEMD") != ""
	for range 4 { // the user's bus may only just be starting, slowly
		if _, err = m.findWarden(t.Context()); err == nil || !must {
			break
		}
	}
	if err != nil {
		if must {
			t.Fatal(err)
		}
		t.Skip("no systemd that hands over groups: ", err)
	}
	return m
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func property1(t *testing.T, unit, name string) string {
	t.Helper()
	return systemctl(t, "show", "--value", "-p", name, unit)
}

// enter starts a helper in the group as a start engine does: born inside, or handed to systemd.
func enter(t *testing.T, g *Group, act string) *proc {
	t.Helper()
	j, err := g.JoinFDs()
	if err != nil {
		t.Fatal(err)
	}
	p := &proc{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(os.Environ(), actVar+"="+act)
	p.Stdout, p.Stderr = &p.out, &p.out
	p.WaitDelay = time.Second
	if !j.Attach {
		p.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: j.CloneInto}
	}
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	if j.Attach {
		if err := g.AddProc(t.Context(), p.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// A scope of the group's own: limits in both places, live changes, figures after the end, nothing left.
func TestScope(t *testing.T) {
	m := needSystemd(t)
	unit := name(t) + ".scope"
	r := Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}, Pids: PidsResources{Max: 20}, CPU: CPUResources{CPUs: 0.25, Weight: 50}}
	c := Config{Systemd: &Scope{Description: "a test of caisson"}}
	g, err := m.New(t.Context(), name(t), r, c)
	if err != nil {
		t.Fatal(err)
	}
	defer destroy(t, g)
	t.Log(g.Paths())
	show := func(name, want string) {
		t.Helper()
		if got := property1(t, unit, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	show("Description", "a test of caisson")
	show("Delegate", "yes")
	show("MemoryMax", strconv.Itoa(64<<20))
	show("MemorySwapMax", "0")
	show("TasksMax", "23")
	show("CPUQuotaPerSecUSec", "250ms")
	show("CPUWeight", "50")
	for file, want := range map[string]string{"memory.max": strconv.Itoa(64 << 20), "pids.max": "20", "cpu.max": "25000 100000"} {
		if got := cat(t, g, Memory, file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if os.Getuid() == 0 {
		if err := g.Update(t.Context(), Resources{Devices: DefaultDeviceRules()}); err != nil {
			t.Errorf("device rules: %v", err)
		}
		show("DevicePolicy", "strict")
		if got := property1(t, unit, "DeviceAllow"); !strings.Contains(got, "/dev/char/1:3 rwm") || !strings.Contains(got, "char-136 rwm") {
			t.Errorf("DeviceAllow is %q", got)
		}
	}
	if _, err := m.New(t.Context(), name(t), Resources{}, c); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a unit of that name: %v", err)
	}
	up := Resources{Memory: MemoryResources{Max: 96 << 20}, CPU: CPUResources{CPUs: Max}, Pids: PidsResources{Max: 30}}
	if err := g.Update(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	show("MemoryMax", strconv.Itoa(96<<20))
	show("CPUQuotaPerSecUSec", "infinity")
	show("TasksMax", "33")
	outer := path.Dir(g.Paths()[unifiedName])
	for _, dir := range []string{outer, outer + "/" + g.Name()} {
		text, err := os.ReadFile(dir + "/memory.max")
		if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(96<<20) {
			t.Errorf("%s after a reload: %s, %v", dir, text, err)
		}
	}
	p := enter(t, g, "hog")
	p.run()
	_ = p.Wait()
	s, err := g.Final()
	if n, ok := s.Memory.OOMKills.Get(); err != nil || !ok || n == 0 {
		t.Errorf("figures after the end: %+v, %v: %s", s, err, p.out.String())
	}
	q := enter(t, g, "spin")
	q.run()
	if err := g.Freeze(within(t, patience)); err != nil {
		t.Error(err)
	}
	if err := g.Kill(within(t, patience)); err != nil {
		t.Error(err)
	}
	_ = q.Wait()
	if err := g.Delete(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if got := property1(t, unit, "LoadState"); got != "not-found" {
		t.Errorf("the unit is still %q", got)
	}
	if _, err := os.Stat(outer); !os.IsNotExist(err) {
		t.Errorf("%s: %v", outer, err)
	}
}

// Another program changes and removes what the first has made; the unit goes with the group.
func TestScopeFromElsewhere(t *testing.T) {
	m := needSystemd(t)
	g, err := m.New(t.Context(), name(t), Resources{Memory: MemoryResources{Max: 32 << 20}}, Config{Systemd: &Scope{}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	other, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	h, err := other.OpenPaths(g.Paths())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Update(t.Context(), Resources{Memory: MemoryResources{Max: 48 << 20}}); err != nil {
		t.Fatal(err)
	}
	if got := property1(t, g.Name()+".scope", "MemoryMax"); got != strconv.Itoa(48<<20) {
		t.Errorf("MemoryMax is %s", got)
	}
	if err := h.Delete(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if got := property1(t, g.Name()+".scope", "LoadState"); got != "not-found" {
		t.Errorf("the unit is still %q", got)
	}
}

// A program that is killed leaves no unit: what holds it ends with the program.
func TestScopeOfKilledProgram(t *testing.T) {
	needSystemd(t)
	unit := name(t) + ".scope"
	end, said := startProgram(t, "scoped", unit)
	if said != "made" {
		t.Errorf("%q", said)
	}
	if got := property1(t, unit, "ActiveState"); got != "active" {
		t.Errorf("the unit is %s", got)
	}
	end()
	if !testutil.Eventually(patience, func() bool { return property1(t, unit, "LoadState") == "not-found" }) {
		t.Error("the unit outlives its program")
	}
}

// startProgram starts a program that makes groups in scopes and waits to be killed, and returns its first line.
func startProgram(t *testing.T, act, unit string) (end func(), said string) {
	t.Helper()
	p := &proc{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(os.Environ(), actVar+"="+act, "CGROUPS_TEST_UNIT="+unit)
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { _ = p.Process.Kill(); _ = p.Wait() })
	t.Cleanup(end)
	p.run()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Errorf("%q, %v", line, err)
	}
	return end, strings.TrimSpace(line)
}

// What holds a scope that is to outlive its program ends with the last group in it, not with the program.
func TestHolderStays(t *testing.T) {
	dir := t.TempDir()
	var st unix.Stat_t
	if err := os.Mkdir(path.Join(dir, keepLeaf), 0o755); err != nil || unix.Stat(dir, &st) != nil || st.Nlink != 3 {
		// Not every file system counts the directories in one, as that of cgroups does.
		if dir, err = os.MkdirTemp("/dev/shm", "caisson-holder"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			err = os.Mkdir(path.Join(dir, keepLeaf), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(path.Join(dir, "group"), 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	h, err := startHolder()
	if err != nil {
		t.Fatal(err)
	}
	defer h.release()
	if err := h.stay(fd); err != nil {
		t.Fatal(err)
	}
	h.child.Conn.Close() // as the end of the program does
	asleep := strconv.Itoa(unix.SYS_CLOCK_NANOSLEEP) + " "
	if !testutil.Eventually(patience, func() bool {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(h.child.Pid) + "/syscall")
		return err == nil && strings.HasPrefix(string(text), asleep)
	}) {
		t.Fatal("it does not wait for the end of the group")
	}
	if err := os.Remove(path.Join(dir, "group")); err != nil {
		t.Fatal(err)
	}
	if !stage.AwaitShort(h.child.Pidfd, patience) {
		t.Error("it outlives the group")
	}
}

// A holder that has been killed cannot stay, and who asks for it is told.
func TestHolderStaysUnlessKilled(t *testing.T) {
	fd, err := openDir(unix.AT_FDCWD, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	h, err := startHolder()
	if err != nil {
		t.Fatal(err)
	}
	defer h.release()
	if err := unix.Kill(h.child.Pid, unix.SIGKILL); err != nil || !stage.AwaitShort(h.child.Pidfd, patience) {
		t.Fatal("it cannot be killed: ", err)
	}
	sc := &scope{unit: "x.scope", hold: h, dir: parentDir{path: "/x.scope", fd: fd}}
	var e *Error
	if err := sc.stay(); !errors.As(err, &e) || !errors.Is(err, errHolderEnded) || sc.stays {
		t.Errorf("%v, stays: %t", err, sc.stays)
	}
}

// A holder that was left to itself is collected when it ends.
func TestHolderStaysAndIsCollected(t *testing.T) {
	h, err := startHolder()
	if err != nil {
		t.Fatal(err)
	}
	pid := h.child.Pid
	h.leave() // of a program that has not said what to stay for: the end of the conversation ends it
	if !testutil.Eventually(patience, func() bool {
		var info unix.Siginfo
		return unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == unix.ECHILD
	}) {
		t.Error("a zombie is left")
	}
}

// A group that is to outlive its program does, with what it counts, until somebody removes it; the unit goes with it. What else the program had
// goes with the program.
func TestScopeOutlivesProgram(t *testing.T) {
	m := needSystemd(t)
	for _, own := range []string{name(t) + ".scope", ""} {
		t.Run("unit="+own, func(t *testing.T) {
			end, said := startProgram(t, "outlived", own)
			end()
			dirs := strings.Fields(said)
			if len(dirs) != 2 {
				t.Fatalf("%q", said)
			}
			dir, other := dirs[0], path.Base(path.Dir(dirs[1]))
			g, err := m.OpenPaths(map[string]string{unifiedName: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer destroy(t, g)
			unit := path.Base(path.Dir(dir))
			if !strings.HasSuffix(unit, ".scope") {
				t.Skip("the program's group is delegated")
			}
			if !testutil.Eventually(patience, func() bool { return property1(t, other, "LoadState") == "not-found" }) {
				t.Errorf("%s outlives the program, with nothing but %s", other, dirs[1])
			}
			q := enter(t, g, "hog")
			q.run()
			_ = q.Wait()
			_ = property1(t, unit, "ActiveState") // answers when what came before has been handled
			if s, err := g.Final(); err != nil || s.Memory.OOMKills.Or(0) == 0 {
				t.Errorf("figures after the end of all: %+v, %v: %s", s, err, q.out.String())
			}
			if err := g.Delete(within(t, patience)); err != nil {
				t.Fatal(err)
			}
			if !testutil.Eventually(patience, func() bool { return property1(t, unit, "LoadState") == "not-found" }) {
				t.Error("the unit outlives the group")
			}
		})
	}
}

func makeScope(outlive bool) {
	c := Config{}
	if unit := os.Getenv("CGROUPS_TEST_UNIT"); unit != "" {
		c.Systemd = &Scope{Unit: unit}
	}
	if outlive {
		one, err := New(context.Background(), "caisson-goes", Resources{}, Config{})
		c.Outlive = true
		g, gerr := New(context.Background(), "caisson-outlived", Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}}, c)
		if err = errors.Join(err, gerr); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(g.Paths()[unifiedName], one.Paths()[unifiedName])
		time.Sleep(time.Hour)
	}
	_, err := New(context.Background(), "caisson-scoped", Resources{Pids: PidsResources{Max: 5}}, c)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("made")
	time.Sleep(time.Hour)
}

// What systemd refuses leaves neither a unit nor a process.
func TestScopeFails(t *testing.T) {
	m := needSystemd(t)
	_, err := m.New(t.Context(), name(t), Resources{Unified: map[string]string{"memory.nonsense": "1"}}, Config{Systemd: &Scope{}})
	if !errors.Is(err, ErrNotSupported) {
		t.Errorf("a file that does not exist: %v", err)
	}
	if got := property1(t, name(t)+".scope", "LoadState"); got != "not-found" {
		t.Errorf("the unit is still %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.New(ctx, name(t), Resources{}, Config{Systemd: &Scope{}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Without a word about systemd, groups are made where it tolerates them: in one scope of the program's.
func TestProgramScope(t *testing.T) {
	m := needSystemd(t)
	if len(delegatedTo(m.layout.Hierarchies[0].Dir(), m.layout.Hierarchies[0].Mountpoint)) > 0 {
		t.Skip("the program's group is delegated")
	}
	var dirs []string
	for i := range 2 {
		began := time.Now()
		g, err := m.New(t.Context(), name(t)+strconv.Itoa(i), Resources{Memory: MemoryResources{Max: 64 << 20}, Pids: PidsResources{Max: 5}},
			Config{Optional: all})
		if err != nil {
			t.Fatal(err)
		}
		defer destroy(t, g)
		t.Logf("made in %v", time.Since(began))
		dirs = append(dirs, path.Dir(g.Paths()[unifiedName]))
		p := enter(t, g, "hog")
		text, err := os.ReadFile("/proc/" + strconv.Itoa(p.Process.Pid) + "/cgroup")
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(text)), "/"+g.Name()) {
			t.Errorf("the process is in %s, %v", text, err)
		}
		p.run()
		_ = p.Wait()
		if s, err := g.Summary(); err != nil || s.Memory.OOMKills.Or(0) == 0 {
			t.Errorf("%+v, %v", s, err)
		}
	}
	if dirs[0] != dirs[1] || !strings.HasSuffix(dirs[0], ".scope") || os.Getuid() == 0 && !isDelegated(dirs[0]) {
		t.Errorf("made in %q", dirs)
	}
	for _, a := range m.Check() {
		t.Logf("%+v", a)
		if always.Has(a.Controller) || a.Controller == Pids {
			if !a.Usable || !a.Systemd {
				t.Errorf("%+v", a)
			}
		}
	}
	if own := m.layout.Hierarchies[0].Own; strings.Contains(own, "user.slice") && os.Getuid() != 0 && !m.Attaches(Resources{}, Config{}) {
		t.Log("the program can move its own processes")
	}
	// Somebody ends the scope: the next group gets another.
	if pid := m.scope.hold.child.Pid; unix.Kill(pid, unix.SIGKILL) != nil {
		t.Error("no holder")
	}
}

// A scope that has ended is replaced.
func TestScopeIsReplaced(t *testing.T) {
	m := needSystemd(t)
	make1 := func() string {
		g, err := m.New(t.Context(), name(t), Resources{Pids: PidsResources{Max: 5}}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		dir := path.Dir(g.Paths()[unifiedName])
		destroy(t, g)
		return dir
	}
	first := make1()
	if m.scope == nil {
		t.Skip("the program's group is delegated")
	}
	systemctl(t, "stop", m.scope.unit)
	if second := make1(); first == second {
		t.Errorf("again %s", second)
	}
}
