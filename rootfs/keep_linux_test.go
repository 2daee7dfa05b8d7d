package rootfs

import (
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

func init() {
	scenarios["keep"] = scenario{source: func(d string) Source { return rootDir(d).UpperSize(1 << 20) }, check: handOut}
	scenarios["keep-host"] = scenario{source: func(string) Source { return HostAll().UpperSize(1 << 20) }, check: handOut}
}

// handOut changes things and sends the root to the test.
func handOut(c *checker) {
	c.writes("/etc/new", "new")
	c.writes("/dev/shm/x", "memory")
	if err := os.Symlink("/etc", "/link"); err != nil {
		c.bad("%v", err)
	}
	_ = os.WriteFile("/big", make([]byte, 2<<20), 0o644)
	if _, err := unix.GetsockoptInt(3, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return
	}
	b := program.NewBuilder(false)
	hand(b, b.Input("sock"), true)
	prog, err := b.Build()
	if err != nil {
		c.bad("%v", err)
		return
	}
	if err := prog.RunClosing([]int{3}); err != nil {
		c.bad("%v", err)
	}
}

// TestKeep reads a root filesystem after the last process in it is gone.
func TestKeep(t *testing.T) {
	for _, name := range []string{"keep", "keep-host"} {
		for _, m := range modes[:4] {
			t.Run(name+"/"+m.name, func(t *testing.T) {
				if !m.userns && os.Getuid() != 0 {
					t.Skip("needs root")
				}
				if name == "keep-host" && m.features == (Features{}) {
					t.Skip("makes no difference")
				}
				fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
				defer ours.Close()
				runScenario(t, name, m, makeTestRoot(t), theirs)
				theirs.Close()
				k, err := Receive(ours)
				if err != nil {
					t.Fatal(err)
				}
				defer k.Close()
				for path, want := range map[string]string{"/link/new": "new", "/dev/shm/x": "memory"} {
					fd, err := unix.Openat2(int(k.Root.Fd()), path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: inRoot})
					if err != nil {
						t.Errorf("%s: %v", path, err)
						continue
					}
					f := os.NewFile(uintptr(fd), path)
					if b, err := io.ReadAll(f); err != nil || string(b) != want {
						t.Errorf("%s holds %q, %v", path, b, err)
					}
					f.Close()
				}
				space, err := Usage(k.Root)
				if err != nil || space.Size != 1<<20 || !space.Full() {
					t.Errorf("%+v, %v", space, err)
				}
				rootAlone(t, name, k)
			})
		}
	}
}

// rootAlone lets the mount namespace go: the root mount stays, what is mounted below it does not.
func rootAlone(t *testing.T, name string, k *Kept) {
	t.Helper()
	if name != "keep" {
		return
	}
	if err := k.ns.Close(); err != nil {
		t.Fatal(err)
	}
	k.ns = nil
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: inRoot}
	fd, err := unix.Openat2(int(k.Root.Fd()), "/etc/new", how)
	if err != nil {
		t.Errorf("with the root alone: %v", err)
	}
	_ = unix.Close(fd)
	if fd, err := unix.Openat2(int(k.Root.Fd()), "/dev/shm/x", how); err == nil {
		_ = unix.Close(fd)
		t.Error("what was mounted below is still there")
	}
}
