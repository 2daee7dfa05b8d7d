package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// TestUserIsRefused: without delegation an ordinary user gets a typed refusal with a remedy, and the same as data.
func TestUserIsRefused(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	if text, _ := os.ReadFile("/proc/self/cgroup"); strings.Contains(string(text), "user@") || os.Getenv("CAISSON_TEST_DELEGATED") != "" {
		t.Skip("this user may have a delegated group")
	}
	if m, err := Default(); err == nil {
		if _, err := m.findWarden(t.Context()); err == nil {
			t.Skip("this user may have a delegated group")
		}
	}
	_, err := New(context.Background(), name(t), Resources{Pids: PidsResources{Max: 5}}, Config{})
	var u *UnsupportedError
	if !errors.As(err, &u) || u.Remedy == "" || u.Controller != Pids || !errors.Is(err, unix.EACCES) && !systemdRuns() {
		t.Fatalf("got %v", err)
	}
	if !errors.Is(err, ErrNotSupported) {
		t.Error("is not ErrNotSupported")
	}
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range m.Check() {
		if a.Usable || a.Reason == "" {
			t.Errorf("%+v", a)
		}
	}
	if _, err := New(context.Background(), name(t), Resources{}, Config{Optional: all}); !errors.Is(err, ErrNotSupported) {
		t.Errorf("with nothing but optional controllers: %v", err)
	}
	if _, err := New(context.Background(), name(t), Resources{}, Config{Parent: "/", Controllers: Pids}); !errors.Is(err, unix.EACCES) {
		t.Errorf("below the root: %v", err)
	}
}

// TestDelegation gives a group to an ordinary user, as an administrator or systemd does, and uses it as that user.
func TestDelegation(t *testing.T) {
	g := newGroup(t, Resources{}, Config{Controllers: Memory | Pids})
	for _, dir := range g.Paths() {
		for _, f := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"} {
			if err := os.Chown(filepath.Join(dir, f), nobody, nobody); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	p := &proc{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(os.Environ(), actVar+"=delegated")
	p.Stdout, p.Stderr = &p.out, &p.out
	j, err := g.JoinFDs()
	if err != nil {
		t.Fatal(err)
	}
	p.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		UseCgroupFD: j.CloneInto >= 0, CgroupFD: max(j.CloneInto, 0)}
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if len(j.Tasks) > 0 {
		if err := g.AddProc(context.Background(), p.Process.Pid); err != nil {
			t.Error(err)
		}
	}
	p.run()
	if err := p.Wait(); err != nil || !strings.Contains(p.out.String(), "all good") {
		t.Errorf("%v: %s", err, p.out.String())
	}
}

// TestContainerRoot is root in a cgroup namespace with its own mount, as in a container: the group at the mount point
// is not the real root and has processes.
func TestContainerRoot(t *testing.T) {
	if mode(t) != ModeV2 {
		t.Skip("v1 groups have no rule against internal processes")
	}
	g := newGroup(t, Resources{}, Config{Controllers: Memory | Pids})
	j, err := g.JoinFDs()
	if err != nil {
		t.Fatal(err)
	}
	p := &proc{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(os.Environ(), actVar+"=container")
	p.Stdout, p.Stderr = &p.out, &p.out
	p.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: j.CloneInto,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP}
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.run()
	if err := p.Wait(); err != nil || !strings.Contains(p.out.String(), "all good") {
		t.Errorf("%v: %s", err, p.out.String())
	}
}

// container is what happens inside in TestContainerRoot.
func container() {
	m, err := NewManager()
	if err == nil { // the mount of the outer namespace still covers what the inner one calls root
		_, err = m.New(context.Background(), "job", Resources{}, Config{Controllers: Pids})
	}
	if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "outside") {
		fmt.Println("before the mount:", err)
		os.Exit(1)
	}
	err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH)
	}
	if err == nil {
		err = unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")
	}
	if err != nil {
		fmt.Println("mount:", err)
		os.Exit(1)
	}
	delegated()
}

// TestSystemdUser runs where systemd gave the user a delegated group. In a session with a systemd of the user's it asks for
// one for itself.
func TestSystemdUser(t *testing.T) {
	if text, _ := os.ReadFile("/proc/self/cgroup"); os.Getuid() == 0 || !strings.Contains(string(text), "user@") {
		if os.Getuid() != 0 && os.Getenv("CAISSON_TEST_SYSTEMD") == "1" {
			out, err := exec.Command("systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes", "-p", "CollectMode=inactive-or-failed",
				os.Args[0], "-test.v", "-test.run", "^TestSystemdUser$").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestSystemdUser") {
				t.Errorf("%v\n%s", err, out)
			}
			return
		}
		t.Skip("needs an ordinary user in a group that systemd delegated")
	}
	g, err := New(context.Background(), name(t), Resources{Pids: PidsResources{Max: 50}, Memory: MemoryResources{Max: 64 << 20}},
		Config{Optional: CPU})

	if err != nil {
		t.Fatal(err)
	}
	defer destroy(t, g)
	t.Log(g.Paths(), g.Controllers())
	p := start(t, g, "hog")
	p.run()
	_ = p.Wait()
	s, err := g.Summary()
	if err != nil || s.Memory.OOMKills.Or(0) == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestGoneParent: a parent that was removed is looked for anew.
func TestGoneParent(t *testing.T) {
	needRoot(t)
	m, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	own := newGroup(t, Resources{}, Config{Controllers: Pids})
	for i := range m.layout.Hierarchies { // as if this process were in the group
		h := &m.layout.Hierarchies[i]
		h.Root, h.Own = "/", strings.TrimPrefix(own.Paths()[h.Name], h.Mountpoint)
	}
	g, err := m.New(context.Background(), "x", Resources{}, Config{Controllers: Pids})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	paths := own.Paths()
	if err := own.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.New(context.Background(), "x", Resources{}, Config{Controllers: Pids}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("New below what is gone: %v", err)
	}
	for _, dir := range paths {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
	}
	g, err = m.New(context.Background(), "x", Resources{}, Config{Controllers: Pids})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// delegated is what the user does in TestDelegation.
func delegated() {
	fail := func(what string, err error) {
		if err != nil {
			fmt.Println(what, err)
			os.Exit(1)
		}
	}
	m, err := NewManager()
	fail("manager", err)
	r := Resources{Pids: PidsResources{Max: 10}, Memory: MemoryResources{Max: 64 << 20}}
	if m.Mode() == ModeV2 {
		_, err := m.New(context.Background(), "job", r, Config{})
		if u := (*UnsupportedError)(nil); !errors.As(err, &u) || u.Remedy != remedyLeaf {
			fail("before Vacate", fmt.Errorf("got %v", err))
		}
		fail("vacate", m.Vacate(context.Background(), "leaf"))
		fail("vacate again", m.Vacate(context.Background(), "leaf"))
	}
	g, err := m.New(context.Background(), "job", r, Config{Optional: Freezer})
	fail("new", err)
	j, err := g.JoinFDs()
	fail("join", err)
	cmd := exec.Command("sleep", "100")
	if j.CloneInto >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: j.CloneInto}
	}
	fail("start", cmd.Start())
	fail("add", g.AddProc(context.Background(), cmd.Process.Pid))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	fail("freeze", g.Freeze(ctx))
	fail("kill", g.Kill(ctx))
	_ = cmd.Wait()
	s, err := g.Summary()
	fail("summary", err)
	if s.Pids.Peak.Or(1) != 1 {
		fail("peak", fmt.Errorf("%v", s.Pids))
	}
	fail("delete", g.Delete(ctx))
	fmt.Println("all good")
}
