package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
)

// Directories of subordinate ids can be removed however deep they are.
func TestRemoveDeepOfOthers(t *testing.T) {
	auto := must[namespaces.AutoMaps](t)(namespaces.AutoIDMaps(namespaces.RootIsCaller))
	o := must[*namespaces.Owners](t)(namespaces.NewOwners(context.Background(), auto.IDMaps))
	defer o.Close()
	top := filepath.Join(t.TempDir(), "top")
	if err := os.Mkdir(top, 0o700); err != nil {
		t.Fatal(err)
	}
	fd := tryOpenTree(t, top)
	for i := range maxTreeDepth + 100 {
		for _, name := range []string{"d", "e"} {
			if err := unix.Mkdirat(fd, name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		sub, err := openSub(fd, "d")
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if os.Geteuid() != 0 && o.Has(7, 8) {
				if err := o.Chown(fd, 7, 8); err != nil {
					t.Fatal(err)
				}
			}
			unix.Close(fd)
		}
		fd = sub
	}
	unix.Close(fd)
	if err := removeTree(top); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(top); !notExist(err) {
		t.Errorf("it is there: %v", err)
	}
}
