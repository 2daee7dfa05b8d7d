package caisson

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// TestCoverLeavesNoLayerBeneath: where the new root covers the empty namespace's one, nothing may be attached beneath
// it but what the container writes anyway.
func TestCoverLeavesNoLayerBeneath(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: others have no empty namespace to begin with")
	}
	if !rootfs.Probe().DetachedLayers {
		t.Skip("needs Linux 6.15: the root changes places with the old one here")
	}
	c, err := New(WithRootfs(rootfs.Dir(t.TempDir())), WithCommand("/bin/true"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b bytes.Buffer
	if err := c.Explain(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	inside := text[strings.Index(text, "setns("):]
	at := strings.Index(inside, "chroot(")
	if at < 0 || strings.Contains(text, "pivot_root") {
		t.Fatalf("the root is not covered:\n%s", text)
	}
	moves := regexp.MustCompile(`(?m)^move_mount\((<[^>]*>), .*"(/[^"]*)", MOVE`).FindAllStringSubmatch(inside[:at], -1)
	if len(moves) != 2 || moves[0][2] == "/" || moves[1][2] != "/" {
		t.Errorf("attached before the change of root: %q; want the writable layer, then the root", moves)
	}
	if strings.Contains(text, "open_tree(") {
		t.Errorf("a layer is cloned as a mount, which waits for a grace period when it goes:\n%s", text)
	}
}

// TestCoveredRootIsWhole: nothing in the container is different from one whose root changed places: mounts below "/"
// only, and a mount namespace of its own that can be pivoted in.
func TestCoveredRootIsWhole(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox: ", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/bin/busybox", busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `set -e; b=/bin/busybox
$b awk '$5 == "/" { n++ } END { if (n != 1) print n " mounts on /" }' /proc/self/mountinfo
$b unshare -m $b sh -c 'set -e; b=/bin/busybox
$b mkdir -p /n; $b mount -t tmpfs n /n; $b mkdir -p /n/o /n/bin; $b cp $b /n/bin; cd /n; $b pivot_root . o; /bin/busybox umount -l /o; /bin/busybox ls /'`
	for name, src := range map[string]rootfs.Source{"overlay": rootfs.Dir(dir), "writable": rootfs.Dir(dir).Writable()} {
		c, err := New(WithRootfs(src), WithCommand("/bin/busybox", "sh", "-c", script), WithAddedCapabilities("SYS_ADMIN"), WithoutSeccomp())
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.CombinedOutput(context.Background())
		if err != nil || string(out) != "bin\no\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func init() {
	// escape is the classic way out of a chroot: a process whose directory is outside of its root walks up.
	roles["escape"] = func() {
		_ = os.Mkdir("/jail", 0o755)
		if err := unix.Chroot("/jail"); err != nil {
			fmt.Println("chroot:", err)
		}
		for range 64 {
			_ = unix.Chdir("..")
		}
		if err := unix.Chroot("."); err != nil {
			fmt.Println("chroot .:", err)
		}
		_ = unix.Chdir("/")
		_, err := os.Stat("/jail")
		comm, _ := os.ReadFile("/proc/1/cmdline")
		fmt.Printf("jail %v; 1 is %q; pid %d\n", err == nil, comm, os.Getpid())
	}
}

// A process that walks up with another root than the container's arrives at the container's root, and nowhere else.
func TestChrootEscapeStaysInside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: with a user namespace the root changes places and nothing is beneath")
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	c, err := New(WithRootfs(rootfs.Dir("/")), WithCommand("escape"), WithCommandFile(exe), WithEnv(testutil.RoleEnviron("escape")...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, err := c.CombinedOutput(testContext(t))
	if want := "jail true; 1 is \"escape\\x00\"; pid 1\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}
