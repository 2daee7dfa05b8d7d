package caisson

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// Every overlay of a container leaves whole files and directories in its upper layer, whatever the machine's defaults are. The kernel shows
// those options only that differ from them.
func TestOverlayWhole(t *testing.T) {
	var want []string
	for _, p := range [][3]string{{"redirect_always_follow", "Y", "redirect_dir=nofollow"}, {"redirect_dir", "Y", "redirect_dir=nofollow"}, {"metacopy", "Y", "metacopy=off"}} {
		if b, err := os.ReadFile("/sys/module/overlay/parameters/" + p[0]); err == nil && strings.TrimSpace(string(b)) == p[1] {
			want = append(want, p[2])
		}
	}
	box := testutil.Busybox(t)
	over := func(upper bool) Option {
		m := rootfs.OverlayMount("/mnt", "", "", box)
		if upper {
			dir := t.TempDir()
			m = rootfs.OverlayMount("/mnt", madeDir(t, dir, "upper"), madeDir(t, dir, "work"), box)
			for _, d := range []string{m.Upper, m.Work} { // for the root of a user namespace
				if err := os.Chmod(d, 0o777); err != nil {
					t.Fatal(err)
				}
			}
		}
		return WithMount(m)
	}
	user := WithNamespace(namespaces.User, namespaces.New())
	for name, c := range map[string]struct {
		overlays int
		opts     []Option
	}{
		"memory":       {1, []Option{WithRootfs(rootfs.Dir(box))}},
		"memory, user": {1, []Option{WithRootfs(rootfs.Dir(box)), user}},
		"disk":         {1, []Option{WithRootfs(rootfs.Overlay(box).Upper(t.TempDir()))}},
		"disk, user":   {1, []Option{WithRootfs(rootfs.Overlay(box).Upper(t.TempDir())), user}},
		"read-only":    {1, []Option{WithRootfs(rootfs.Overlay(box).ReadOnly())}},
		"mounts":       {3, []Option{WithRootfs(rootfs.Dir(box)), over(true), over(false)}},
		"mounts, user": {3, []Option{WithRootfs(rootfs.Dir(box)), over(true), over(false), user}},
	} {
		t.Run(name, func(t *testing.T) {
			output(t, append(c.opts, sh("true"))...) // makes what the program keeps
			noLeaks(t)
			text := output(t, append(c.opts, sh("cat /proc/self/mountinfo"))...)
			n := 0
			for line := range strings.Lines(text) {
				_, fs, _ := strings.Cut(line, " - ")
				if !strings.HasPrefix(fs, "overlay ") {
					continue
				}
				n++
				for _, w := range want {
					if !strings.Contains(fs, ","+w) {
						t.Errorf("no %s: %s", w, line)
					}
				}
				if strings.Contains(fs, "redirect_dir=on") || strings.Contains(fs, "metacopy=on") {
					t.Error(line)
				}
			}
			if n != c.overlays {
				t.Errorf("%d overlays; want %d:\n%s", n, c.overlays, text)
			}
		})
	}
}

// A directory of a layer that another layer has deleted is not to be had by way of an attribute, which the kernel follows by default.
func TestOverlayRedirect(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(madeDir(t, dir, "lower/deleted"), "secret"), []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(madeDir(t, dir, "top/shown"), "trusted.overlay.redirect", []byte("/deleted"), 0); err != nil {
		t.Skipf("trusted attributes cannot be set here: %v", err)
	}
	if err := unix.Mknod(filepath.Join(dir, "top/deleted"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	root := rootfs.Overlay(filepath.Join(dir, "top"), filepath.Join(dir, "lower"), testutil.Busybox(t))
	for name, opts := range map[string][]Option{
		"memory": nil, "disk": {WithRootfs(root.Upper(t.TempDir()))},
		"mount": {WithRootfs(rootfs.Dir(testutil.Busybox(t))), WithMount(rootfs.OverlayMount("/mnt", "", "", filepath.Join(dir, "top"), filepath.Join(dir, "lower")))},
	} {
		t.Run(name, func(t *testing.T) {
			if got := output(t, append(append([]Option{WithRootfs(root)}, opts...), sh("for d in /shown /mnt/shown; do cat $d/secret 2>&1; done; true"))...); strings.Contains(got, "secret\n") || !strings.Contains(got, "Operation not permitted") {
				t.Errorf("%q", got)
			}
		})
	}
}
