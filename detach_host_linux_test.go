package caisson

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func init() {
	roles["detach"] = detachRole
}

// detachRole is a host program that does one thing with the container that the environment names, says so, and waits.
func detachRole() {
	runtime.LockOSThread() // so that most of what it does is one thread's
	ctx := context.Background()
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	fail := func(err error) {
		say("error %v", err)
		os.Exit(1)
	}
	d, id := StateDir(os.Getenv("CAISSON_TEST_STATE")), os.Getenv("CAISSON_TEST_ID")
	do := os.Getenv("CAISSON_TEST_DO")
	opts := []Option{WithRootfs(rootfs.Dir(os.Getenv("CAISSON_TEST_DIR")).Writable()), WithDetached(true), WithStateDir(string(d)), WithID(id),
		WithCommand("/bin/sh", "-c", os.Getenv("CAISSON_TEST_SCRIPT"))}
	if m, err := strconv.ParseInt(os.Getenv("CAISSON_TEST_MEMORY"), 10, 64); err == nil {
		opts = append(opts, WithMemory(m))
	}
	if os.Getenv("CAISSON_TEST_SINGLE") != "" && !isRoot() {
		opts = append(opts, WithIDMaps(namespaces.SingleIDMaps()))
	}
	if strings.HasPrefix(do, "watched-") {
		do = strings.TrimPrefix(do, "watched-")
		opts = append(opts, watchedOption())
	}
	switch do {
	case "start", "create":
		c, err := New(opts...)
		if err != nil {
			fail(err)
		}
		f := c.Start
		if do == "create" {
			f = c.Create
		}
		p, err := f(ctx)
		if err != nil {
			fail(err)
		}
		say("made %d", p.Pid())
	case "release", "remove", "stop":
		c, err := d.Load(ctx, id)
		if err != nil {
			fail(err)
		}
		switch do {
		case "release":
			_, err = c.Start(ctx)
		case "stop":
			err = c.Stop(ctx, 0)
		default:
			err = c.Remove(ctx)
		}
		if err != nil {
			fail(err)
		}
		say("made 0")
	}
	if f := insideRoles[do]; f != nil {
		c, err := d.Load(ctx, id)
		if err == nil {
			err = f(ctx, c)
		}
		if err != nil {
			fail(err)
		}
		say("made 0")
	}
	if f := ownRoles[do]; f != nil {
		if err := f(ctx, append(opts, WithDetached(false))); err != nil {
			fail(err)
		}
		say("made 0")
	}
	if os.Getenv("CAISSON_TEST_STAY") != "" {
		select {}
	}
}

// detachHost is the command of a host program that does one thing with a container.
func detachHost(d StateDir, id, dir, script, do string, env ...string) *exec.Cmd {
	return testutil.Role("detach", append([]string{"CAISSON_TEST_STATE=" + string(d), "CAISSON_TEST_ID=" + id, "CAISSON_TEST_DIR=" + dir,
		"CAISSON_TEST_SCRIPT=" + script, "CAISSON_TEST_DO=" + do, "GOMAXPROCS=1", "GOGC=off"}, env...)...)
}

// startHostOf runs such a program until it has done its thing, and returns what kills it.
func startHostOf(t *testing.T, cmd *exec.Cmd) (kill func()) {
	t.Helper()
	cmd.Env = append(cmd.Env, "CAISSON_TEST_STAY=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "made ") {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("%q, %v", line, err)
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// The host program is killed while the container runs. Another finds everything, also what came after.
func TestHostKilledContainerLives(t *testing.T) {
	d, id := stateDir(t), fmt.Sprint("web", os.Getpid())
	dir := testutil.Busybox(t)
	fifo := filepath.Join(dir, "go")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		script string
		env    []string
		check  func(*testing.T, *Result)
	}{
		"exit": {"read x </go; exit 9", nil, func(t *testing.T, r *Result) {
			if r.Reason != ReasonExited || r.ExitCode != 9 {
				t.Errorf("%+v", r)
			}
		}},
		"signal": {"read x </go; kill -TERM $PPID; sh -c 'kill -9 $PPID'; exec sleep 0", nil, func(t *testing.T, r *Result) {
			if r.Reason != ReasonExited { // process 1 does not die of its own signals
				t.Errorf("%+v", r)
			}
		}},
		"memory": {"read x </go; x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", []string{"CAISSON_TEST_MEMORY=16777216"}, func(t *testing.T, r *Result) {
			if n, _ := r.OOMKills.Get(); r.Reason != ReasonOOM || n == 0 || r.PeakMemory.Or(0) < 8<<20 {
				t.Errorf("%+v", r)
			}
		}},
	} {
		for _, loadedBefore := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/loaded before the end %v", name, loadedBefore), func(t *testing.T) {
				if c.env != nil {
					needCgroup(t, cgroups.Memory)
				}
				startHostOf(t, detachHost(d, id, dir, c.script, "start", c.env...))()
				ctr := (*Container)(nil)
				if loadedBefore {
					ctr = load(t, d, id)
					if ctr.State() != StateRunning {
						t.Fatal(ctr.State())
					}
				}
				w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				w.WriteString("x\n")
				w.Close()
				if !loadedBefore {
					if !testutil.Eventually(testTime, func() bool {
						l, err := d.List(testContext(t))
						return err == nil && len(l) == 1 && l[0].State == StateStopped
					}) {
						t.Fatal("it does not end")
					}
					ctr = load(t, d, id)
				}
				r, err := ctr.Wait(testContext(t))
				if err != nil {
					t.Fatal(err)
				}
				c.check(t, r)
				if r.Started.IsZero() || r.Ended.Before(r.Started) || r.Wall != r.Ended.Sub(r.Started) {
					t.Errorf("%+v", r)
				}
				if err := ctr.Remove(testContext(t)); err != nil {
					t.Fatal(err)
				}
				if g := groupsOf(id); len(g) > 0 {
					t.Errorf("left: %v", g)
				}
			})
		}
	}
}

// groupsOf lists the cgroups of containers with an id.
func groupsOf(id string) (l []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasPrefix(e.Name(), "caisson-"+id+"-") {
			l = append(l, p)
			return fs.SkipDir
		}
		return nil
	})
	return l
}

// processesWith lists the processes whose command line holds a text.
func processesWith(text string) (l []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		b, _ := os.ReadFile(f)
		if pid, _ := strconv.Atoi(strings.Split(f, "/")[2]); strings.Contains(string(b), text) && pid != os.Getpid() {
			l = append(l, pid)
		}
	}
	return l
}

// Two programs that want one id: one gets it, the other a typed error.
func TestTwoProgramsOneID(t *testing.T) {
	d := stateDir(t)
	dir := testutil.Busybox(t)
	for range 5 {
		var outs []io.Reader
		var cmds []*exec.Cmd
		for range 2 {
			cmd := detachHost(d, "one", dir, "sleep 1000", "start")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			outs, cmds = append(outs, out), append(cmds, cmd)
		}
		made, refused := 0, 0
		for i, out := range outs {
			b, _ := io.ReadAll(out)
			cmds[i].Wait()
			switch {
			case strings.HasPrefix(string(b), "made "):
				made++
			case strings.Contains(string(b), ErrExists.Error()):
				refused++
			default:
				t.Errorf("%q", b)
			}
		}
		if made != 1 || refused != 1 {
			t.Fatalf("%d made it, %d were refused", made, refused)
		}
		if err := load(t, d, "one").Remove(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// Create in one program, start in another, wait in a third.
func TestCreateStartAndWaitInThreePrograms(t *testing.T) {
	d := stateDir(t)
	dir := testutil.Busybox(t)
	for _, do := range []string{"create", "release"} {
		cmd := detachHost(d, "web", dir, "exit 5", do)
		if out, err := cmd.Output(); err != nil || !strings.HasPrefix(string(out), "made ") {
			t.Fatalf("%s: %q, %v", do, out, err)
		}
	}
	c := load(t, d, "web")
	if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 5 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// A program that names another process by a recycled number, or that comes after a reboot, harms nobody.
func TestLoadIsNotMistaken(t *testing.T) {
	d := stateDir(t)
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	time.Sleep(50 * time.Millisecond) // a process is known by its number and when it began, in steps of 10 ms: no number comes again so soon
	for name, change := range map[string]func(map[string]string){
		"recycled pid": func(m map[string]string) { m[`"pid": `] = strconv.Itoa(other.Process.Pid) },
		"reboot":       func(m map[string]string) { m[`"bootID": `] = `"an earlier boot"` },
	} {
		t.Run(name, func(t *testing.T) {
			opts := []Option{WithCommand("/bin/sleep", "1000")}
			if name == "recycled pid" { // a group in which the container still lives would be waited for: nobody is in it when it has ended
				opts = append(opts, WithoutCgroup())
			}
			c := detached(t, d, "web", opts...)
			p, err := c.Start(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			first := load(t, d, "web") // keeps a hold of the real one
			c.Close()
			file := filepath.Join(string(d), "web", "state.json")
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m := map[string]string{}
			change(m)
			bad := string(good)
			for field, v := range m {
				lines := strings.Split(bad, "\n")
				for i, l := range lines {
					if k, _, ok := strings.Cut(l, field); ok {
						lines[i] = k + field + v
						if !strings.HasSuffix(lines[i], ",") && strings.HasSuffix(l, ",") {
							lines[i] += ","
						}
					}
				}
				bad = strings.Join(lines, "\n")
			}
			if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			wrong, err := d.Load(testContext(t), "web")
			if err != nil {
				t.Fatal(err)
			}
			if wrong.State() != StateStopped {
				t.Error(wrong.State())
			}
			if _, err := wrong.Wait(testContext(t)); !errors.Is(err, ErrStatusUnknown) {
				t.Errorf("%v", err)
			}
			if !testutil.Alive(other.Process.Pid) || !testutil.Alive(p.Pid()) && name == "reboot" {
				t.Error("a process was ended that is not the container's")
			}
			wrong.Close()
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := first.Remove(testContext(t)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
