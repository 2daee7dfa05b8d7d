package caisson

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// Root filesystems of a container with a user namespace are id-mapped wherever the file system can be: what root writes inside belongs to
// root outside, and no file changes hands. Where it cannot be, the error says so.
func TestIDMappedFileSystems(t *testing.T) {
	testutil.NeedRoot(t)
	for _, place := range []string{os.TempDir(), "/var/tmp", "/dev/shm"} {
		var sf unix.Statfs_t
		if err := unix.Statfs(place, &sf); err != nil || sf.Flags&unix.ST_NOEXEC != 0 {
			continue
		}
		t.Run(place, func(t *testing.T) {
			t.Setenv("TMPDIR", place)
			must(t, os.MkdirAll(place, 0o755))
			dir := testutil.Busybox(t)
			start := func() ([]byte, error) {
				c, err := New(WithRootfs(rootfs.Dir(dir).Writable()), WithNamespace(namespaces.User, namespaces.New()), sh("stat -c %u /etc/passwd && echo x > /written"))
				must(t, err)
				defer c.Close()
				return c.CombinedOutput(testContext(t))
			}
			_, _ = start() // makes what the program keeps
			noLeaks(t)
			out, err := start()
			may := sf.Type == unix.TMPFS_MAGIC && idMaps(t) || sf.Type == unix.EXT4_SUPER_MAGIC
			t.Logf("%s (type %#x): %q %v", place, sf.Type, out, err)
			if err != nil {
				var e *Error
				if may || !errors.Is(err, unix.EINVAL) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "6.3") {
					t.Errorf("got %v", err)
				}
				return
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, "written"), &st); err != nil || st.Uid != 0 || string(out) != "0\n" {
				t.Errorf("it belongs to %d, %v; inside %q", st.Uid, err, out)
			}
		})
	}
}
