package caisson

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// The kernel mounts an overlay read-only, without an error, if it cannot make its directory in the work directory. That is not what was asked for.
func TestUpperLayerCannotBeUsed(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	dir := t.TempDir()
	work, err := os.Open(madeDir(t, dir, "work"))
	if err != nil {
		t.Fatal(err)
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	flags, err := unix.IoctlGetInt(int(work.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(work.Fd()), unix.FS_IOC_SETFLAGS, flags|immutable)
	}
	if err != nil {
		work.Close()
		t.Skipf("the file system has no immutable directories: %v", err)
	}
	mutable := sync.OnceFunc(func() {
		if err := unix.IoctlSetPointerInt(int(work.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
			t.Error(err)
		}
		work.Close()
	})
	defer mutable()
	overlay := rootfs.Overlay(testutil.Busybox(t)).Upper(dir)
	for name, root := range map[string][]Option{
		"root":  {WithRootfs(overlay)},
		"mount": {WithRootfs(rootfs.Dir(testutil.Busybox(t))), WithMount(rootfs.OverlayMount("/mnt", filepath.Join(dir, "upper"), filepath.Join(dir, "work"), testutil.Busybox(t)))},
	} {
		t.Run(name, func(t *testing.T) {
			madeDir(t, dir, "upper")
			err := newContainer(t, append(root, sh("echo started"))...).Run(testContext(t))
			var se *StepError
			if !errors.As(err, &se) || !errors.Is(err, unix.EROFS) || se.Object != dir && se.Object != filepath.Join(dir, "upper") || !strings.Contains(err.Error(), "work directory") {
				t.Error(err)
			}
		})
	}
	mutable()
	if err := newContainer(t, WithRootfs(overlay), sh("echo x > /x")).Run(testContext(t)); err != nil {
		t.Error(err)
	}
}

// madeDir is a directory that is made if it is not there.
func madeDir(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
