package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Tests that change the root run in a child: this test binary again, as the init of new namespaces. The child
// finds its scenario by name, enters the layout, checks what it sees, and prints what is wrong.

const (
	childName = "ROOTFS_TEST_SCENARIO"
	childDir  = "ROOTFS_TEST_DIR"
	childMode = "ROOTFS_TEST_MODE"
	childSuid = "ROOTFS_TEST_SUID" // set-user-ID works where the tests are
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childName); name != "" {
		os.Exit(child(name))
	}
	if os.Getenv("ROOTFS_TEST_WAIT") != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	code := m.Run()
	if testBinaryDir != "" {
		_ = os.RemoveAll(testBinaryDir)
	}
	os.Exit(code)
}

// mode is the way in which a scenario runs.
type mode struct {
	name     string
	userns   bool
	features Features
}

var modes = []mode{
	{"root", false, Features{Openat2: true, MountSetattr: true}},
	{"root-old-calls", false, Features{}},
	{"userns", true, Features{Openat2: true, MountSetattr: true}},
	{"userns-old-calls", true, Features{}},
	{"userns-range", true, Features{Openat2: true, MountSetattr: true}},
}

func (m mode) env() Env {
	return Env{UserNamespace: m.userns, Unprivileged: m.userns, OwnIDs: m.userns && m.name != "userns-range", Features: m.features}
}

// scenario is one layout with what is to be true inside.
type scenario struct {
	source func(dir string) Source
	change func(dir string, l *Layout)
	wants  error // that Enter fails with
	check  func(c *checker)
	after  func(t *testing.T, dir string) // on the host
	skip   func(m mode) string
	ranges bool // runs in mode userns-range too
	plant  func(t *testing.T, dir string)
	layers int // the layers it stacks on the root
}

func child(name string) int {
	runtime.LockOSThread()
	// The go runtime started threads before; the one that enters must not share its root with them.
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		fmt.Println("unshare:", err)
		return 2
	}
	// Most machines have shared mounts; what is cloned from them must not stay a peer.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		fmt.Println("mount:", err)
		return 2
	}
	s, dir := scenarios[name], os.Getenv(childDir)
	m := modes[slices.IndexFunc(modes, func(m mode) bool { return m.name == os.Getenv(childMode) })]
	_, _ = os.ReadFile("/proc/version") // opens what the runtime keeps for its poller
	env := m.env()
	if name == "dir-scratch-on-root" {
		env.ScratchDir = "/"
	}
	if strings.HasPrefix(name, "idmap") {
		env.IDMap = os.NewFile(3, "userns")
	}
	source := s.source(dir)
	before := openFiles()
	d, err := source.Describe(context.Background(), env)
	if err != nil {
		fmt.Println("describe:", err)
		return 2
	}
	defer d.Close()
	l := DefaultLayout(d)
	if s.change != nil {
		s.change(dir, l)
	}
	before = max(before, openFiles())
	err = Enter(context.Background(), l, env)
	if s.wants != nil {
		if !errors.Is(err, s.wants) {
			fmt.Printf("Enter = %v, want %v\n", err, s.wants)
			return 2
		}
		return 0
	}
	if err != nil {
		fmt.Println("enter:", err)
		return 2
	}
	c := &checker{mode: m, desc: d}
	if after := openFiles(); before != after {
		c.bad("%d files open before, %d after", before, after)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		c.bad("unshare: %v", err)
	}
	s.check(c)
	for _, f := range c.faults {
		fmt.Println(f)
	}
	return min(len(c.faults), 1)
}

func openFiles() (n int) {
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

// runScenario runs a scenario in a child and returns its complaints.
func runScenario(t *testing.T, name string, m mode, dir string, files ...*os.File) {
	t.Helper()
	cmd := exec.Command(testBinary(t))
	cmd.Env = []string{childSuid + "=" + os.Getenv(childSuid), childName + "=" + name, childDir + "=" + dir, childMode + "=" + m.name, "GOCOVERDIR=" + os.TempDir(), "GORACE=" + os.Getenv("GORACE")}
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWUTS}
	if m.userns {
		uid, gid := testIDs()
		attr.Cloneflags |= unix.CLONE_NEWUSER
		size := 1
		if m.name == "userns-range" {
			uid, gid, size = 100000, 100000, 65536
		}
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: size}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: size}}
		attr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	cmd.SysProcAttr = attr
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// testIDs are the ids that own the test's files and become the container's root in a user namespace.
func testIDs() (uid, gid int) {
	if os.Getuid() == 0 {
		return 65534, 65534
	}
	return os.Getuid(), os.Getgid()
}

// testBinaryDir holds the copy of the running binary, once it has been made.
var testBinaryDir string

// testBinary is a copy of the running binary that others may execute too; one for all tests.
func testBinary(t *testing.T) string {
	t.Helper()
	if testBinaryDir == "" {
		dir, err := os.MkdirTemp("", "rootfs")
		if err != nil {
			t.Fatal(err)
		}
		testBinaryDir = dir
		if err := copyTestBinary(filepath.Join(dir, "test")); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(testBinaryDir, "test")
}

func copyTestBinary(path string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, self); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// openTempDir is a temporary directory that every user can reach.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rootfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Overlayfs leaves directories with mode 0 in its work directory.
		_ = filepath.WalkDir(filepath.Join(dir, "upper/work"), func(path string, e fs.DirEntry, _ error) error {
			if e != nil && e.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checker collects what is wrong, inside.
type checker struct {
	mode   mode
	desc   *Description
	faults []string
}

func (c *checker) bad(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

func (c *checker) content(path, want string) {
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		c.bad("%s holds %q (%v), want %q", path, got, err, want)
	}
}

func (c *checker) writes(path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.bad("write: %v", err)
		return
	}
	c.content(path, text)
}

func (c *checker) refuses(path string, want error) {
	if err := os.WriteFile(path, []byte("x"), 0o644); !errors.Is(err, want) {
		c.bad("write %s = %v, want %v", path, err, want)
	}
}

func (c *checker) missing(path string) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		c.bad("%s: %v, want that it does not exist", path, err)
	}
}

// mountOptions returns the options of the mount at point, and those of its filesystem.
func (c *checker) mountLine(point string) (fields []string, options string) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		c.bad("%v", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[4] == point {
			fields = f // the last one is on top
		}
	}
	if fields == nil {
		c.bad("nothing mounted on %s:\n%s", point, b)
		return make([]string, 10), ""
	}
	return fields, fields[5]
}

func (c *checker) hasOptions(point string, want ...string) {
	_, have := c.mountLine(point)
	for _, w := range want {
		not := strings.HasPrefix(w, "!")
		if slices.Contains(strings.Split(have, ","), strings.TrimPrefix(w, "!")) == not {
			c.bad("%s is mounted %s, want %v", point, have, want)
		}
	}
}
