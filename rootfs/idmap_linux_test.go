package rootfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	check := func(c *checker) {
		for path, want := range map[string]uint32{"/etc/lower": 165534, "/data/hello": 165534, "/tmp/hello": 65534} {
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || st.Uid != want || st.Gid != want {
				c.bad("%s belongs to %d:%d, %v, want %d", path, st.Uid, st.Gid, err, want)
			}
		}
	}
	change := func(d string, l *Layout) {
		m := BindMount(filepath.Join(d, "vol"), "/data")
		m.IDMap = MappedAll
		l.Mounts = append(l.Mounts, m, BindMount(filepath.Join(d, "vol"), "/tmp"))
	}
	never := func(mode) string { return "run by TestIDMap" }
	scenarios["idmap-dir"] = scenario{source: func(d string) Source { return rootDir(d) }, change: change, check: check, skip: never}
	scenarios["idmap-writable"] = scenario{source: func(d string) Source { return rootDir(d).Writable() }, change: change, skip: never, check: func(c *checker) {
		check(c)
		c.hasOptions("/", "nodev")
		if os.Getenv(childSuid) != "" {
			c.hasOptions("/", "!nosuid")
		}
	}}
}

// TestIDMap maps the owners of the root filesystem and of a mount.
func TestIDMap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	var sf unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &sf); err != nil {
		t.Fatal(err)
	}
	if sf.Flags&unix.ST_NOSUID == 0 {
		t.Setenv(childSuid, "1")
	}
	ns := userNamespace(t)
	for _, name := range []string{"idmap-dir", "idmap-writable"} {
		t.Run(name, func(t *testing.T) { runScenario(t, name, modes[0], makeTestRoot(t), ns) })
	}
}

// userNamespace returns a user namespace with ids 0 to 65535 mapped to 100000 and up.
func userNamespace(t *testing.T) *os.File {
	t.Helper()
	cmd := exec.Command(testBinary(t), "-test.run=NONE")
	maps := []syscall.SysProcIDMap{{HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: maps, GidMappings: maps}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	cmd.Env = append(os.Environ(), childName+"=", "ROOTFS_TEST_WAIT=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}
