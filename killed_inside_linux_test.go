package caisson

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// insideRoles are what a host program does with a running container.
var insideRoles = map[string]func(context.Context, *Container) error{
	"exec": execRole, "update": updateRole, "pause": pauseRole, "mount": mountRole, "copy": copyRole,
}

// ownRoles are what a host program does with containers of its own, which end with it.
var ownRoles = map[string]func(context.Context, []Option) error{"attached": attachedRole, "lent": lentRole, "pool": poolRole}

func attachedRole(ctx context.Context, opts []Option) error {
	c, err := New(opts...)
	if err == nil {
		_, err = c.Start(ctx)
	}
	for _, f := range []func(context.Context, *Container) error{execRole, updateRole, pauseRole, mountRole} {
		if err == nil {
			err = f(ctx, c)
		}
	}
	if err == nil {
		err = c.Close()
	}
	return err
}

func execRole(ctx context.Context, c *Container) error {
	opts := []ProcessOption{WithCommand("/bin/sh", "-c", "exit 0; "+os.Getenv("CAISSON_TEST_SCRIPT")+"9")}
	if c.run.group != nil && isRoot() {
		opts = append(opts, WithMemory(32<<20))
	}
	p, err := c.Exec(ctx, opts...)
	if err == nil {
		_, err = p.Wait(ctx)
	}
	return err
}

func updateRole(ctx context.Context, c *Container) error {
	return tolerate(c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 77}}))
}

func pauseRole(ctx context.Context, c *Container) error {
	if err := c.Pause(ctx); err != nil {
		return tolerate(err)
	}
	return c.Resume(ctx)
}

// tolerate is for users without cgroups.
func tolerate(err error) error {
	if errors.Is(err, ErrUnsupported) {
		return nil
	}
	return err
}

func mountRole(ctx context.Context, c *Container) error {
	if err := c.Mount(ctx, rootfs.TmpfsMount("/var", 1<<20), rootfs.ReadOnlyBindMount("/etc", "/tmp")); err != nil {
		return err
	}
	return errors.Join(c.Unmount(ctx, "/tmp"), c.Unmount(ctx, "/var"))
}

func copyRole(ctx context.Context, c *Container) error {
	return c.CopyIn(ctx, "/etc/passwd", "/dev/shm/x/passwd")
}

// Host programs that do something in a container that another made are killed at a system call, each time a later one. The
// container has to live on, to go on if it was paused, and to be of use; nothing else is to be left.
func TestKilledAtEverySystemCallInside(t *testing.T) {
	for do := range insideRoles {
		t.Run(do, func(t *testing.T) {
			k := newKilling(t, do)
			k.begin()
			n, runs := 1, 0
			for step := widerStep(t, 4); ; n += step {
				said := k.run(n, "sleep "+k.mark)
				k.livesOn(n, said)
				if runs++; k.survived {
					break
				}
				if n > 5000 {
					t.Fatal("it never gets to its end")
				}
			}
			k.end()
			if runs < 2 {
				t.Errorf("only %d kills", runs)
			}
			t.Logf("%d kills, up to system call %d", runs, n)
		})
	}
}

// A program that makes a container of its own and does all this with it is killed: nothing at all is to be left.
func TestKilledAtEverySystemCallAttached(t *testing.T) {
	newKilling(t, "attached").everywhere(9, func(int, string) {})
}

// everywhere kills the program at one system call after the other, until it gets to its end. Nothing is to be left; more says
// what else holds then.
func (k *killing) everywhere(factor int, more func(n int, said string)) {
	t := k.t
	t.Helper()
	n, runs := 1, 0
	for step := widerStep(t, factor); ; n += step {
		said := k.run(n, "sleep "+k.mark)
		k.nothing(n, said)
		more(n, said)
		if runs++; k.survived {
			break
		}
		if n > 9000 {
			t.Fatal("it never gets to its end")
		}
	}
	if runs < 2 {
		t.Errorf("only %d kills", runs)
	}
	t.Logf("%d kills, up to system call %d", runs, n)
}

// killsEnv names the variable that says how many kills at random there are: 500 take some minutes.
const killsEnv = "CAISSON_TEST_KILLS"

// Kills at any moment, without strace: of programs that do one thing after the other.
func TestKilledAtRandom(t *testing.T) {
	kills, err := strconv.Atoi(os.Getenv(killsEnv))
	if err != nil {
		kills = 12
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	all := []string{"exec", "update", "pause", "mount", "copy", "attached", "start"}
	made := map[string]*killing{}
	for i := range kills {
		do := all[i%len(all)]
		k := made[do]
		if k == nil {
			k = newKilling(t, do)
			k.takes = k.measure()
			made[do] = k
		}
		after := time.Duration(r.Float64() * 1.1 * float64(k.takes))
		if insideRoles[do] != nil && k.made == nil {
			k.begin()
		}
		said := k.runFor(after)
		if insideRoles[do] != nil {
			k.livesOn(i, said)
		} else {
			k.nothing(i, said)
		}
	}
	for _, k := range made {
		if k.made != nil {
			k.end()
		}
	}
}

// widerStep is killStep, times a factor unless the variable says it.
func widerStep(t *testing.T, factor int) int {
	if os.Getenv(killStepEnv) != "" {
		factor = 1
	}
	return factor * killStep(t)
}

// killings numbers them, so that each knows its own processes.
var killings atomic.Int32

func newKilling(t *testing.T, do string) *killing {
	k := &killing{t: t, d: stateDir(t), dir: testutil.Busybox(t), do: do, id: fmt.Sprint("kill-", do, os.Getpid()),
		mark: fmt.Sprintf("8%d%02d", 10000+os.Getpid()%90000, killings.Add(1))}
	return k
}

// begin has another program make the container.
func (k *killing) begin() {
	k.t.Helper()
	if out, err := detachHost(k.d, k.id, k.dir, "sleep "+k.mark, "start").Output(); err != nil {
		k.t.Fatalf("%s %v", out, err)
	}
	k.made = &k.id
}

// measure tells how long the program takes when it is not killed.
func (k *killing) measure() time.Duration {
	k.t.Helper()
	if insideRoles[k.do] != nil {
		k.begin()
	}
	start := time.Now()
	out, err := detachHost(k.d, k.id, k.dir, "sleep "+k.mark, k.do, "CAISSON_TEST_SINGLE=1").Output()
	if err != nil || !strings.Contains(string(out), "made ") {
		k.t.Fatalf("%s: %s %v", k.do, out, err)
	}
	took := time.Since(start)
	if k.do == "start" {
		k.nothing(0, string(out))
	}
	return took
}

// runFor runs the program and kills it after some time. It returns what it said.
func (k *killing) runFor(d time.Duration) string {
	out, err := os.CreateTemp(k.t.TempDir(), "out")
	if err != nil {
		k.t.Fatal(err)
	}
	defer out.Close()
	cmd := detachHost(k.d, k.id, k.dir, "sleep "+k.mark, k.do, "CAISSON_TEST_SINGLE=1")
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	stop := time.AfterFunc(d, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	stop.Stop()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		k.t.Fatal(err)
	}
	return string(b)
}

// livesOn fails the test unless the container lives and is of use, and nothing else is left of the program that was killed.
func (k *killing) livesOn(n int, said string) {
	t := k.t
	t.Helper()
	ctx := testContext(t)
	if _, err := k.d.Recover(ctx); err != nil {
		t.Errorf("killed at %d, which said %q: recover: %v", n, said, err)
	}
	c, err := k.d.Load(ctx, k.id)
	if err != nil {
		t.Fatalf("killed at %d, which said %q: the container is lost: %v", n, said, err)
	}
	defer c.Close()
	if s := c.State(); s == StatePaused || k.do == "pause" && s == StateRunning {
		if err := tolerate(c.Resume(ctx)); err != nil && !errors.Is(err, ErrState) {
			t.Errorf("killed at %d, which said %q: resume: %v", n, said, err)
		}
	}
	if s := c.State(); s != StateRunning {
		t.Fatalf("killed at %d, which said %q: the container is %v", n, said, s)
	}
	if out, res := execs(t, c, "echo of use"); out != "of use\n" || !res.Success() {
		t.Errorf("killed at %d, which said %q: %q, %v", n, said, out, res)
	}
	var left string
	if !testutil.Eventually(testTime/4, func() bool {
		_, _ = k.d.Recover(ctx)
		left = fmt.Sprint(len(processesWith(k.mark)), processesWith("exit 0; sleep "+k.mark), k.subGroups(c))
		return left == "1 [] []"
	}) {
		t.Fatalf("killed at %d, which said %q: processes and groups are %s", n, said, left)
	}
	if k.do == "mount" { // what was attached can be taken away, and is known only if it is there
		for _, target := range []string{"/tmp", "/var"} {
			if err := c.Unmount(ctx, target); err != nil && !errors.Is(err, ErrNotMounted) {
				t.Errorf("killed at %d, which said %q: %v", n, said, err)
			}
		}
		if out, _ := execs(t, c, "grep -c -E ' /(var|tmp) ' /proc/self/mountinfo"); out != "0\n" {
			t.Errorf("killed at %d, which said %q: mounts that nobody knows: %q", n, said, out)
		}
	}
}

// subGroups are those below the container's that are for one process.
func (k *killing) subGroups(c *Container) (l []string) {
	if c.run.group == nil {
		return nil
	}
	names, err := c.run.group.Children()
	if err != nil {
		return []string{err.Error()}
	}
	for _, n := range names {
		if strings.HasPrefix(n, execGroup) {
			l = append(l, n)
		}
	}
	return l
}

// end removes the container, and nothing is to be left.
func (k *killing) end() {
	k.t.Helper()
	c, err := k.d.Load(testContext(k.t), k.id)
	if err != nil {
		k.t.Fatal(err)
	}
	if err := c.Remove(testContext(k.t)); err != nil {
		k.t.Error(err)
	}
	k.made = nil
	k.nothing(-1, "")
}

// nothing fails the test unless nothing is left. A detached container that was begun may be there; it is removed.
func (k *killing) nothing(n int, said string) {
	t := k.t
	t.Helper()
	ctx := testContext(t)
	var left string
	if !testutil.Eventually(testTime/4, func() bool {
		_, _ = k.d.Recover(ctx)
		_, _ = Recover(ctx)
		if c, err := k.d.Load(ctx, k.id); err == nil && k.do == "start" {
			if err := c.Remove(ctx); err != nil {
				t.Errorf("killed at %d, which said %q: remove: %v", n, said, err)
			}
		}
		files, _ := os.ReadDir(string(k.d))
		left = fmt.Sprint(processesWith(k.mark), groupsOf(k.id), files)
		return left == "[] [] []"
	}) {
		t.Fatalf("killed at %d, which said %q: left are processes, groups and files %s", n, said, left)
	}
}
