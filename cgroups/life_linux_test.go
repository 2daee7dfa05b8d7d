package cgroups

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// configs are the shapes a group can have on this machine.
func configs(t *testing.T) map[string]Config {
	if mode(t) == ModeV2 {
		return map[string]Config{"v2": {Controllers: Pids}}
	}
	return map[string]Config{
		"hybrid":       {Controllers: Pids | Memory},
		"v1-freezer":   {Controllers: Pids | Freezer, NoUnified: true},
		"v1-pids-only": {Controllers: Pids, NoUnified: true},
		"v1-no-pids":   {Controllers: Memory, NoUnified: true},
	}
}

func cpuTicks(t *testing.T, pid int) (ticks int, state string) {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	a, _ := strconv.Atoi(f[11])
	b, _ := strconv.Atoi(f[12])
	return a + b, f[0]
}

func TestFreezeAndThaw(t *testing.T) {
	for name, c := range configs(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, Resources{}, c)
			ctx := within(t, patience)
			if !g.Controllers().Has(Freezer) {
				if err := g.Freeze(ctx); !errors.Is(err, ErrNotSupported) {
					t.Fatalf("freeze without freezer: %v", err)
				}
				return
			}
			p := start(t, g, "spin")
			p.run()
			time.Sleep(50 * time.Millisecond)
			if err := g.Freeze(ctx); err != nil {
				t.Fatal(err)
			}
			if frozen, err := g.Frozen(); err != nil || !frozen {
				t.Errorf("Frozen = %v, %v", frozen, err)
			}
			before, state := cpuTicks(t, p.Process.Pid)
			if state == "R" {
				t.Errorf("state %s after Freeze", state)
			}
			time.Sleep(150 * time.Millisecond)
			if after, _ := cpuTicks(t, p.Process.Pid); after != before {
				t.Errorf("ran %d ticks while frozen", after-before)
			}
			if err := g.Thaw(ctx); err != nil {
				t.Fatal(err)
			}
			if frozen, err := g.Frozen(); err != nil || frozen {
				t.Errorf("Frozen = %v, %v after Thaw", frozen, err)
			}
			if !testutil.Eventually(patience, func() bool { after, _ := cpuTicks(t, p.Process.Pid); return after != before }) {
				t.Error("did not go on after Thaw")
			}
		})
	}
}

func TestKillFrozen(t *testing.T) {
	for name, c := range configs(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, Resources{}, c)
			if !g.Controllers().Has(Freezer) {
				t.Skip("this shape cannot freeze")
			}
			p := start(t, g, "sleep")
			if err := g.Freeze(within(t, patience)); err != nil {
				t.Fatal(err)
			}
			if err := g.Kill(within(t, patience)); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait()
		})
	}
}

// TestForkStorm: processes that fork as fast as they can are killed to empty.
func TestForkStorm(t *testing.T) {
	shapes := configs(t)
	if mode(t) != ModeV2 {
		shapes["v1-freezer-no-pids"] = Config{Controllers: Freezer, NoUnified: true}
	}
	for name, c := range shapes {
		t.Run(name, func(t *testing.T) {
			// Spare the machine: the storm goes on at a limit, which is another group's where this one has none.
			limit := PidsResources{Max: 600}
			g := newGroup(t, Resources{}, c)
			fence := g
			if g.node(Pids) == nil {
				fence = newGroup(t, Resources{Pids: limit}, Config{NoUnified: true, Parent: "/"})
			} else if err := g.Update(context.Background(), Resources{Pids: limit}); err != nil {
				t.Fatal(err)
			}
			var procs []*proc
			for range 24 {
				p := start(t, g, "storm")
				if err := fence.AddProc(t.Context(), p.Process.Pid); err != nil {
					t.Fatal(err)
				}
				procs = append(procs, p)
			}
			for _, p := range procs {
				p.run()
			}
			time.Sleep(200 * time.Millisecond)
			began := time.Now()
			if err := g.Kill(within(t, 5*time.Minute)); err != nil { // an emulated machine takes long
				t.Fatal(err)
			}
			took := time.Since(began)
			t.Logf("killed to empty in %v", took)
			if pids, err := g.Procs(); err != nil || len(pids) > 0 {
				t.Errorf("left: %v %v", pids, err)
			}
			if got := cat(t, fence, Pids, "pids.max"); got != "600" {
				t.Errorf("Kill left pids.max at %s", got)
			}
		})
	}
}

// TestKillStray: on a hybrid machine a process may be in a v1 directory only, out of reach of cgroup.kill.
func TestKillStray(t *testing.T) {
	if mode(t) != ModeHybrid {
		t.Skip("needs a hybrid machine")
	}
	g := newGroup(t, Resources{}, Config{Controllers: Pids})
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := g.node(Pids).write("cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) > 0 {
		t.Errorf("left: %v %v", pids, err)
	}
}

func TestUnknownControllers(t *testing.T) {
	if _, err := New(context.Background(), name(t), Resources{}, Config{Controllers: 1 << 15}); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestDeleteWaits(t *testing.T) {
	g := newGroup(t, Resources{Pids: PidsResources{Max: 50}}, Config{})
	p := start(t, g, "sleep")
	var busy *BusyError
	err := g.Delete(within(t, 50*time.Millisecond))
	if !errors.As(err, &busy) || !slices.Contains(busy.Pids, p.Process.Pid) || !errors.Is(err, unix.EBUSY) ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Delete of a group in use: %v", err)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = p.Process.Kill() })
	if err := g.Delete(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(t.Context()); err != ErrClosed {
		t.Errorf("second Delete: %v", err)
	}
	if _, err := g.Summary(); err != ErrClosed {
		t.Errorf("Summary after Delete: %v", err)
	}
}

func TestNested(t *testing.T) {
	g := newGroup(t, Resources{Pids: PidsResources{Max: 50}}, Config{Controllers: Memory})
	var kids []string
	for _, n := range []string{"a", "b"} {
		k, err := g.New(context.Background(), n, Resources{Pids: PidsResources{Max: 10}}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		deep, err := k.New(context.Background(), "deep", Resources{}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		_ = deep.Close()
		start(t, k, "sleep")
		kids = append(kids, n)
		_ = k.Close()
	}
	if got, err := g.Children(); err != nil || !slices.Equal(got, kids) {
		t.Errorf("Children = %v, %v", got, err)
	}
	k, err := g.Child("a")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if pids, err := k.Procs(); err != nil || len(pids) != 1 {
		t.Errorf("child holds %v, %v", pids, err)
	}
	if mode(t) == ModeV2 {
		return
	}
	var u *UnsupportedError
	if _, err := g.New(context.Background(), "c", Resources{CPU: CPUResources{Weight: 5}}, Config{}); !errors.As(err, &u) || u.Controller != CPU {
		t.Errorf("a controller that the parent lacks: %v", err)
	}
}

func TestOpenFromElsewhere(t *testing.T) {
	g := newGroup(t, Resources{Pids: PidsResources{Max: 50}}, Config{Controllers: Memory})
	text, err := json.Marshal(g.Paths())
	if err != nil {
		t.Fatal(err)
	}
	var p Paths
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	m, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	byPath, err := m.OpenPaths(p)
	if err != nil {
		t.Fatal(err)
	}
	byName, err := m.Open(g.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer byName.Close()
	if !byName.Controllers().Has(Pids|Memory) || len(byName.Paths()) != len(p) {
		t.Errorf("opened by name: %v %v", byName.Controllers(), byName.Paths())
	}
	if err := byPath.Update(context.Background(), Resources{Pids: PidsResources{Max: 7}}); err != nil || cat(t, g, Pids, "pids.max") != "7" {
		t.Errorf("update through the second handle: %v", err)
	}
	if err := byPath.Delete(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenPaths(p); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenPaths of what is gone: %v", err)
	}
	if err := g.Delete(within(t, patience)); err != nil {
		t.Errorf("Delete of what another deleted: %v", err)
	}
}

func TestOpenPathsRefuses(t *testing.T) {
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	h := m.Layout().Hierarchies[0]
	for _, p := range []Paths{
		{h.Name: "/etc"}, {h.Name: h.Mountpoint}, {h.Name: h.Mountpoint + "/../../etc"}, {"nowhere": h.Mountpoint + "/x"},
		{h.Name: "relative"}, {h.Name: h.Mountpoint + "x/y"},
	} {
		if _, err := m.OpenPaths(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", p, err)
		}
	}
}

func TestParent(t *testing.T) {
	g := newGroup(t, Resources{}, Config{Parent: "/", Controllers: Pids})
	for _, dir := range g.Paths() {
		if strings.Count(strings.TrimPrefix(dir, "/sys/fs/cgroup/"), "/") > 1 {
			t.Errorf("%s is not below the root", dir)
		}
	}
	_, err := New(context.Background(), name(t), Resources{}, Config{Parent: "/caisson-not-there", Controllers: Pids})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing parent: %v", err)
	}
	for _, bad := range []string{"relative", "/a/../b", "/a/"} {
		if _, err := New(context.Background(), name(t), Resources{}, Config{Parent: bad}); !errors.Is(err, ErrInvalid) {
			t.Errorf("parent %q: %v", bad, err)
		}
	}
}

// TestTasksJoin enters by the files of JoinFDs alone, as a start engine does.
func TestTasksJoin(t *testing.T) {
	for name, c := range configs(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, Resources{}, c)
			j, err := g.JoinFDs()
			if err != nil {
				t.Fatal(err)
			}
			fds := slices.Clone(j.Tasks)
			if fd, err := g.ProcsFD(); err != nil {
				t.Fatal(err)
			} else if fd >= 0 {
				fds = append(fds, fd)
			}
			script := "cat /proc/self/cgroup >/dev/null; "
			cmd := exec.Command("sh")
			for i, fd := range fds {
				script += "echo 0 >&" + strconv.Itoa(3+i) + " || exit 3; "
				dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				f := os.NewFile(uintptr(dup), "join")
				defer f.Close()
				cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			}
			cmd.Args = append(cmd.Args, "-c", script+"exec cat /proc/self/cgroup")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := strings.Count(string(out), "/"+g.Name()+"\n"); got != len(fds) {
				t.Errorf("in %d of %d hierarchies:\n%s", got, len(fds), out)
			}
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	needRoot(t)
	errs := make(chan error)
	const workers = 8
	for w := range workers {
		go func() {
			var err error
			for i := 0; i < 20 && err == nil; i++ {
				var g *Group
				g, err = New(context.Background(), prefix()+"-many-"+strconv.Itoa(w), Resources{Memory: MemoryResources{Max: 1 << 20},
					Pids: PidsResources{Max: 5}}, Config{Optional: CPU | CPUAcct | Freezer})

				if err == nil {
					_, err = g.Summary()
					err = errors.Join(err, g.Delete(context.Background()))
				}
			}
			errs <- err
		}()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
