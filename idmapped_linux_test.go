package caisson

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
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

// A kernel that cannot id-map the layers of an overlay answers EINVAL, as for other faults of layers: the step says that they are id-mapped, and the error that the kernel may be too
// old for that, and what does without.
func TestMappedLayersRefused(t *testing.T) {
	refused := &program.StepError{Step: "mount overlay", Object: "of 3 id-mapped layers", Syscall: "mount", Errno: unix.EINVAL}
	for text, want := range map[string]bool{"5.14": true, "5.18": true, "5.19": false, "6.12": false} {
		rel, err := linux.ParseRelease(text)
		if must(t, err); lacksMappedLayers(refused, rel) != want {
			t.Errorf("%s: %v", text, !want)
		}
		other, errno := *refused, *refused
		other.Object, errno.Errno = "of 3 layers", unix.EBUSY
		if lacksMappedLayers(&other, rel) || lacksMappedLayers(&errno, rel) {
			t.Errorf("%s: something else", text)
		}
	}
	rel, err := linux.KernelRelease()
	must(t, err)
	err = (&running{}).explainFailure(refused)
	if help := remedy(err); errors.Is(err, ErrUnsupported) == rel.AtLeast(5, 19) || !errors.Is(err, unix.EINVAL) || !strings.Contains(help, "5.19") || !strings.Contains(help, "MethodCopy") {
		t.Errorf("%v: %s", err, help)
	}
	testutil.NeedRoot(t)
	c, err := New(WithRootfs(rootfs.Dir(t.TempDir())), WithNamespace(namespaces.User, namespaces.New()), WithCommand("/true"))
	must(t, err)
	defer c.Close()
	var b bytes.Buffer
	if err := c.Explain(testContext(t), &b); err != nil || !strings.Contains(b.String(), "mount overlay of 1 id-mapped layers") {
		t.Errorf("%v:\n%s", err, b.String())
	}
}
