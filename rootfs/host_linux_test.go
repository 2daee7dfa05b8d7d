package rootfs

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

func init() {
	noPlainRoot := func(m mode) string {
		if !m.userns {
			return "Host needs a user namespace"
		}
		return ""
	}
	scenarios["host"] = scenario{source: func(string) Source { return Host() }, skip: noPlainRoot, ranges: true, plant: plantSecrets, check: hostOnly}
	scenarios["host-all"] = scenario{source: func(string) Source { return HostAll() }, ranges: true, check: func(c *checker) {
		commonHost(c)
		if e, err := os.ReadDir("/var/lib"); err != nil || len(e) == 0 {
			c.bad("/var/lib: %v %v", e, err)
		}
		c.writes("/var/new", "new")
	}}
}

const planted = "/opt/caisson-rootfs-test"

// plantSecrets puts files and a socket where a container shows the host's directories.
func plantSecrets(t *testing.T, _ string) {
	if os.Getuid() != 0 {
		return
	}
	testutil.HostTree(t, true)
	t.Cleanup(func() { os.RemoveAll(planted); os.RemoveAll("/etc/caisson-rootfs-test") })
	for _, dir := range []string{planted, "/etc/caisson-rootfs-test"} {
		for _, f := range []struct {
			name string
			mode fs.FileMode
			uid  int
		}{{"root", 0o600, 0}, {"user", 0o600, 65534}, {"group", 0o640, 0}, {"public", 0o644, 0}, {"closed/file", 0o644, 65534}} {
			path := filepath.Join(dir, f.name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("secret"), f.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, f.uid, 65534); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(filepath.Join(dir, "closed"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "closed"), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(dir, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if err := os.Chmod(filepath.Join(dir, "socket"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

func commonHost(c *checker) {
	common(c)
	if _, err := os.Stat("/usr/bin/env"); err != nil {
		c.bad("%v", err)
	}
	c.writes("/new", "new")
	c.writes("/usr/new", "new")
	c.writes("/tmp/new", "new")
	if fi, err := os.Stat("/tmp"); err != nil || fi.Mode()&fs.ModeSticky == 0 || fi.Mode().Perm() != 0o777 {
		c.bad("/tmp: %v %v", fi, err)
	}
}

func hostOnly(c *checker) {
	commonHost(c)
	for _, dir := range []string{"/home", "/root", "/run", "/srv", "/mnt", "/media", "/boot"} {
		if e, err := os.ReadDir(dir); err != nil || len(e) > 0 {
			c.bad("%s holds %v, %v", dir, e, err)
		}
	}
	if e, _ := os.ReadDir("/var"); len(e) != 1 {
		c.bad("/var holds %v", e)
	}
	if b, err := os.ReadFile("/etc/shadow"); err == nil && len(b) > 0 {
		c.bad("/etc/shadow is readable")
	}
	if _, err := os.ReadFile("/etc/passwd"); err != nil {
		c.bad("%v", err)
	}
	for _, dir := range []string{planted, "/etc/caisson-rootfs-test"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		for _, name := range []string{"root", "user", "group", "closed/file"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(b) > 0 {
				c.bad("%s/%s holds %q", dir, name, b)
			}
		}
		c.content(filepath.Join(dir, "public"), "secret")
		if conn, err := net.Dial("unix", filepath.Join(dir, "socket")); err == nil {
			conn.Close()
			c.bad("connected to %s/socket", dir)
		} else if !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
			c.bad("connect: %v", err)
		}
	}
}

func TestHostNeedsUserNamespace(t *testing.T) {
	if _, err := Host().Describe(context.Background(), Env{}); err == nil {
		t.Error("accepted without a user namespace")
	}
	if _, err := HostAll().Describe(context.Background(), Env{}); err != nil {
		t.Error(err)
	}
}

// TestFindSecrets looks for what "other" may not read.
func TestFindSecrets(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"public": 0o644, "mine": 0o600, "d/public": 0o644, "d/mine": 0o640, "closed/x": 0o644} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "closed"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "d/sock"), unix.S_IFSOCK|0o777, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "d/fifo"), 0o777); err != nil {
		t.Fatal(err)
	}
	v := &hostView{scan: []string{dir}}
	got, err := findSecrets(context.Background(), v, true, true)
	if err != nil || len(got) != 3 {
		t.Errorf("own: %v, %v", got, err)
	}
	v = &hostView{parts: []Part{{Bind: true, Layer: &Layer{Path: dir}}}}
	got, err = findSecrets(context.Background(), v, false, true)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{filepath.Join(dir, "d/fifo"), filepath.Join(dir, "d/sock")}) {
		t.Errorf("sockets and pipes: %v, %v", got, err)
	}
}

func init() {
	scenarios["host-nested"] = scenario{
		source: func(string) Source { return HostAll() },
		check:  nested,
		skip: func(m mode) string {
			if m.userns {
				return "proc cannot be mounted again in a user namespace where it is masked"
			}
			return ""
		},
	}
}

// nested enters a view of a view, until the kernel stacks no more overlays. It stacks two; the host's root may be the first.
func nested(c *checker) {
	for more := true; more; {
		more = c.stacks("/usr")
		c.writes("/etc/caisson-level", "outer")
		d, err := HostAll().Describe(context.Background(), c.mode.env())
		if err != nil {
			c.bad("%v", err)
			return
		}
		if noted := strings.Contains(strings.Join(d.Notes, "\n"), "/usr is read-only"); noted == more {
			c.bad("another overlay on /usr can be had: %v; notes are %q", more, d.Notes)
		}
		if err := Enter(context.Background(), DefaultLayout(d), c.mode.env()); err != nil {
			c.bad("more %v: %v", more, err)
			return
		}
		common(c)
		c.content("/etc/caisson-level", "outer")
		c.writes("/tmp/x", "new")
	}
	c.refuses("/usr/new", unix.EROFS)
}

// stacks says whether the kernel puts an overlay on a directory.
func (c *checker) stacks(dir string) bool {
	at, err := os.MkdirTemp("/tmp", "stack")
	if err == nil {
		err = unix.Mount("tmpfs", at, "tmpfs", 0, "")
	}
	if err != nil {
		c.bad("%v", err)
		return false
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	for _, d := range []string{"u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(at, d), 0o755); err != nil {
			c.bad("%v", err)
			return false
		}
	}
	err = unix.Mount("overlay", filepath.Join(at, "m"), "overlay", 0, "lowerdir="+dir+",upperdir="+at+"/u,workdir="+at+"/w")
	if err != nil && err != unix.EINVAL {
		c.bad("an overlay on %s: %v", dir, err)
	}
	return err == nil
}
