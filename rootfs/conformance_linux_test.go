package rootfs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// TestConformance puts every source through the same checks, in every mode.
func TestConformance(t *testing.T) {
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			for _, m := range modes {
				t.Run(m.name, func(t *testing.T) {
					if !m.userns && os.Getuid() != 0 {
						t.Skip("needs root")
					}
					if m.name == "userns-range" && (!s.ranges || os.Getuid() != 0) {
						t.Skip("for scenarios that hide owners, and needs root")
					}
					if s.skip != nil && s.skip(m) != "" {
						t.Skip(s.skip(m))
					}
					dir := makeTestRoot(t)
					makeLayers(t, dir, s.layers)
					if s.plant != nil {
						s.plant(t, dir)
					}
					mounts, tree := hostMounts(t), treeHash(t, filepath.Join(dir, "root"))
					runScenario(t, name, m, dir)
					sameMounts(t, mounts)
					if got := treeHash(t, filepath.Join(dir, "root")); got != tree && s.after == nil {
						t.Errorf("the lower directory changed from\n%s\nto\n%s", tree, got)
					}
					if s.after != nil {
						s.after(t, dir)
					}
				})
			}
		})
	}
}

func hostMounts(t *testing.T) []string {
	t.Helper()
	lines := testutil.Mounts(t)
	if len(lines) == 0 {
		t.Fatal("the machine's mounts cannot be read")
	}
	return lines
}

// sameMounts fails the test if the mounts of the host that can be its doing are others than before, and stay so.
func sameMounts(t *testing.T, mounts []string) {
	t.Helper()
	var changed []string
	if !testutil.Eventually(testutil.Time(time.Minute), func() bool { changed = changedMounts(mounts, hostMounts(t)); return len(changed) == 0 }) {
		t.Errorf("mounts of the host changed:\n%s", strings.Join(changed, "\n"))
	}
}

// changedMounts tells what is more or less than before. What has the library's name may be another test program's: of that only what is more, and no pinned
// network namespace.
func changedMounts(before, after []string) (out []string) {
	for _, m := range after {
		if !slices.Contains(before, m) && !strings.Contains(m, " /run/caisson/netns/") {
			out = append(out, "+ "+m)
		}
	}
	for _, m := range before {
		if !slices.Contains(after, m) && !strings.Contains(m, "caisson") {
			out = append(out, "- "+m)
		}
	}
	return out
}

func TestChangedMounts(t *testing.T) {
	const root, pin, tree = "27 1 254:0 / / rw - ext4 /dev/vda rw", "40 27 0:4 net:[4026532001] /run/caisson/netns/1/2 rw - nsfs nsfs rw", "41 27 0:30 / /mnt rw - tmpfs caisson rw"
	for _, c := range []struct {
		before, after []string
		want          string
	}{
		{[]string{root}, []string{root}, ""},
		{[]string{root}, nil, "- " + root},
		{[]string{root}, []string{root, tree}, "+ " + tree},
		{[]string{root, tree, pin}, []string{root}, ""},
		{[]string{root}, []string{root, pin}, ""},
	} {
		if got := strings.Join(changedMounts(c.before, c.after), "\n"); got != c.want {
			t.Errorf("%q from %q to %q", got, c.before, c.after)
		}
	}
}

// treeHash describes a tree: names, modes, contents.
func treeHash(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", path, fi.Mode())
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(data))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// makeTestRoot makes DIR/root, a root filesystem full of traps, DIR/vol, DIR/upper.
func makeTestRoot(t *testing.T) string {
	t.Helper()
	dir := openTempDir(t)
	write := func(name, data string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"root/etc", "root/proc", "root/sys", "root/dev", "root/tmp", "root/data", "vol/sub", "upper", "badroot/etc", "badroot/sys", "badroot/dev"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("root/etc/passwd", "root:x:0:0::/:/bin/sh\n")
	write("root/etc/lower", "lower")
	write("root/file", "covered")
	write("vol/hello", "volume")
	write("volfile", "file of the host")
	write("outside/secret", "untouched")
	for link, to := range map[string]string{
		"root/abs": "/etc", "root/up": "../../../../../../../../etc", "root/magic": "/proc/self/fd/0",
		"root/escape": "/proc/self/root/tmp", "root/dangling": "/nowhere/at/all", "badroot/proc": "etc",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	own(t, dir)
	return dir
}

// makeLayers makes DIR/l0 and so on, each with a file of its own and one that all have.
func makeLayers(t *testing.T, dir string, n int) {
	t.Helper()
	for i := range n {
		layer, number := filepath.Join(dir, "l"+strconv.Itoa(i)), strconv.Itoa(i)
		if err := os.MkdirAll(filepath.Join(layer, "from"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"from/" + number, "top"} {
			if err := os.WriteFile(filepath.Join(layer, name), []byte(number), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		own(t, layer)
	}
}

// own gives the tree to the ids that a user namespace maps.
func own(t *testing.T, dir string) {
	t.Helper()
	uid, gid := testIDs()
	if os.Getuid() != 0 {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func rootDir(dir string) DirSource { return Dir(filepath.Join(dir, "root")) }

func layers(dir string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = filepath.Join(dir, "l"+strconv.Itoa(i))
	}
	return append(out, filepath.Join(dir, "root"))
}

// common is true in every container with the default layout.
func common(c *checker) {
	c.hasOptions("/", "nodev")
	c.hasOptions("/proc", "nosuid", "nodev", "noexec", "rw")
	c.hasOptions("/sys", "nosuid", "nodev", "noexec", "ro")
	c.hasOptions("/dev", "nosuid", "!nodev")
	c.hasOptions("/dev/shm", "nosuid", "nodev", "noexec")
	c.hasOptions("/dev/mqueue", "nosuid", "nodev", "noexec")
	c.hasOptions("/dev/pts", "nosuid", "noexec")
	c.hasOptions("/proc/sys", "ro", "nosuid", "nodev", "noexec")
	if err := os.WriteFile("/proc/sys/kernel/hostname", []byte("x"), 0); err == nil {
		c.bad("/proc/sys is writable")
	}
	for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		if fi, err := os.Stat(p); err == nil {
			if b, err := os.ReadFile(p); err != nil || len(b) != 0 || fi.Mode()&fs.ModeCharDevice == 0 {
				c.bad("%s is not masked: %d bytes, %v, %v", p, len(b), err, fi.Mode())
			}
		}
	}
	if e, err := os.ReadDir("/sys/firmware"); err == nil && len(e) > 0 {
		c.bad("/sys/firmware shows %v", e)
	}
	devices(c)
	if pid, err := os.Readlink("/proc/self"); err != nil || pid != "1" {
		c.bad("/proc/self is %s, %v", pid, err)
	}
	b, _ := os.ReadFile("/proc/thread-self/mountinfo")
	roots := 0
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
			c.bad("not private: %s", line)
		}
		if strings.Fields(line)[4] == "/" {
			roots++
		}
	}
	if roots != 1 {
		c.bad("%d mounts at the root:\n%s", roots, b)
	}
	if e, _ := os.ReadDir("/.."); len(e) == 0 {
		c.bad("/.. is not readable")
	}
	if dir := os.Getenv(childDir); !strings.HasPrefix(dir, "/var/tmp/") { // which a view of the whole host has
		c.missing(dir)
	}
}

func devices(c *checker) {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		fi, err := os.Stat("/dev/" + name)
		if err != nil || fi.Mode()&fs.ModeCharDevice == 0 || fi.Mode().Perm() != 0o666 {
			c.bad("/dev/%s: %v %v", name, fi, err)
		}
	}
	buf := []byte{1, 2, 3}
	if f, err := os.Open("/dev/zero"); err != nil {
		c.bad("%v", err)
	} else if _, err := f.Read(buf); err != nil || buf[0] != 0 {
		c.bad("/dev/zero gives %v %v", buf, err)
	}
	if err := os.WriteFile("/dev/null", []byte("x"), 0); err != nil {
		c.bad("%v", err)
	}
	if f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		c.bad("%v", err)
	} else {
		f.Close()
	}
	for _, l := range DefaultLinks() {
		if got, err := os.Readlink(l.Path); err != nil || got != l.Target {
			c.bad("%s -> %s, %v", l.Path, got, err)
		}
	}
}

// throwAway is true where changes vanish.
func throwAway(c *checker) {
	common(c)
	c.content("/etc/lower", "lower")
	c.writes("/etc/lower", "changed")
	c.writes("/new", "new")
	if err := os.Remove("/etc/passwd"); err != nil {
		c.bad("%v", err)
	}
	c.missing("/etc/passwd")
}

func readOnlyRoot(c *checker) {
	common(c)
	c.hasOptions("/", "ro")
	c.content("/etc/lower", "lower")
	c.refuses("/etc/lower", unix.EROFS)
	c.refuses("/new", unix.EROFS)
	c.writes("/dev/shm/x", "memory")
}

var scenarios = map[string]scenario{
	"dir":                 {source: func(d string) Source { return rootDir(d) }, check: throwAway},
	"dir-readonly":        {source: func(d string) Source { return rootDir(d).ReadOnly() }, check: readOnlyRoot},
	"dir-writable":        {source: func(d string) Source { return rootDir(d).Writable() }, check: throwAwayNot, after: wasWritten},
	"dir-limit":           {source: func(d string) Source { return rootDir(d).UpperSize(1 << 20) }, check: limited},
	"dir-scratch-on-root": {source: func(d string) Source { return rootDir(d) }, check: throwAway},
	"no-dev": {source: func(d string) Source { return rootDir(d) }, check: noDev,
		change: func(_ string, l *Layout) {
			l.Mounts, l.Devices, l.Links = l.Mounts[:1], nil, nil
			l.MaskedPaths = append(l.MaskedPaths, "/etc/lower")
		}},
	"dir-ro-layout": {source: func(d string) Source { return rootDir(d) }, check: readOnlyRoot,
		change: func(_ string, l *Layout) { l.ReadOnly = true }},
	"fd": {source: func(d string) Source {
		f, err := os.Open(filepath.Join(d, "root"))
		if err != nil {
			panic(err)
		}
		return FD(f)
	}, check: throwAway},
	"fd-readonly": {source: func(d string) Source {
		f, err := os.Open(filepath.Join(d, "root"))
		if err != nil {
			panic(err)
		}
		return FD(f).ReadOnly()
	}, check: readOnlyRoot},
	"overlay-1": {source: func(d string) Source { return Overlay(layers(d, 0)...) }, check: throwAway},
	"overlay-20": {source: func(d string) Source { return Overlay(layers(d, 20)...) }, layers: 20, check: func(c *checker) {
		stacked(c, 20)
	}},
	"overlay-120": {source: func(d string) Source { return Overlay(layers(d, 119)...) }, layers: 119, check: func(c *checker) {
		stacked(c, 119)
	}},
	"overlay-readonly":   {source: func(d string) Source { return Overlay(layers(d, 2)...).ReadOnly() }, layers: 2, check: readOnlyRoot},
	"overlay-readonly-1": {source: func(d string) Source { return Overlay(layers(d, 0)...).ReadOnly() }, check: readOnlyRoot},
	"overlay-disk": {source: func(d string) Source { return Overlay(layers(d, 3)...).Upper(filepath.Join(d, "upper")) },
		layers: 3, check: throwAway, after: keptUpper},
	"overlay-volatile": {source: func(d string) Source { return Overlay(layers(d, 3)...).Upper(filepath.Join(d, "upper")).Volatile() },
		layers: 3, check: func(c *checker) {
			throwAway(c)
			b, _ := os.ReadFile("/proc/thread-self/mountinfo")
			if !strings.Contains(string(b), "volatile") {
				c.bad("not volatile: %s", b)
			}
		}, after: keptUpper},
}

// noDev has no /dev of ours to take /dev/null from.
func noDev(c *checker) {
	c.content("/etc/lower", "")
	if fi, err := os.Stat("/proc/keys"); err == nil && fi.Mode()&fs.ModeCharDevice == 0 {
		c.bad("/proc/keys is not masked")
	}
}

func throwAwayNot(c *checker) {
	common(c)
	c.hasOptions("/", "nosuid", "rw")
	c.writes("/new", "new")
}

func wasWritten(t *testing.T, dir string) {
	if b, err := os.ReadFile(filepath.Join(dir, "root/new")); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
}

func keptUpper(t *testing.T, dir string) {
	if b, err := os.ReadFile(filepath.Join(dir, "upper/upper/new")); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
}

func limited(c *checker) {
	common(c)
	err := os.WriteFile("/big", make([]byte, 2<<20), 0o644)
	if err == nil {
		c.bad("2 MiB fit into a layer of 1 MiB")
	}
}

func stacked(c *checker, n int) {
	throwAway(c)
	c.content("/top", "0")
	for i := range n {
		c.content("/from/"+strconv.Itoa(i), strconv.Itoa(i))
	}
}

// TestEnterThread enters on a thread of this process, which is thrown away.
func TestEnterThread(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, mounts := makeTestRoot(t), hostMounts(t)
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine, since it is never unlocked.
		done <- onThread(func() error {
			d, err := rootDir(dir).Describe(context.Background(), Env{})
			if err != nil {
				return err
			}
			if err := Enter(context.Background(), DefaultLayout(d), Env{Features: Probe()}); err != nil {
				return err
			}
			if b, err := os.ReadFile("/etc/lower"); err != nil || string(b) != "lower" {
				return fmt.Errorf("%q, %w", b, err)
			}
			return nil
		})
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	sameMounts(t, mounts)
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the root of other threads changed: %v", err)
	}
}
