package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func init() { roles["broken disk"] = brokenDiskRole }

// brokenDiskRole makes, starts and removes a container that is recorded, and says how that went.
func brokenDiskRole() {
	f := &faulty{ctx: context.Background(), root: WithRootfs(rootfs.Dir(os.Getenv(rootEnv)))}
	if !isRoot() { // what is traced gains no privilege, and so newuidmap none
		f.root = Options(f.root, WithIDMaps(namespaces.SingleIDMaps()))
	}
	dir := os.Getenv(dirEnv)
	err := f.detached(dir)
	var typed *Error
	switch {
	case err == nil:
		fmt.Println("done")
	case !errors.As(err, &typed) || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), dir):
		fmt.Printf("no typed error that names the directory: %T %v\n", err, err)
	default:
		fmt.Println("error:", err)
	}
}

// needStrace returns the path of strace, for tests that trace many starts.
func needStrace(t *testing.T) string {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if testing.Short() {
		t.Skip("not with -short: traces many starts")
	}
	if testutil.Slow() {
		t.Skip("traces many starts: too slow on an emulated processor")
	}
	return strace
}

// The disk with the state directory answers EIO, once, to each system call on it in turn. The error names the directory; what could not
// be removed then is removed by Recover.
func TestBrokenDisk(t *testing.T) {
	strace := needStrace(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := testutil.Busybox(t)
	failed := 0
	for _, call := range []string{"mkdirat", "openat", "write", "pwrite64", "renameat", "fsync", "unlinkat"} {
		t.Run(call, func(t *testing.T) {
			noLeaks(t)
			for n := 1; ; n++ {
				d := stateDir(t)
				if err := os.MkdirAll(string(d), 0o700); err != nil {
					t.Fatal(err)
				}
				log := filepath.Join(t.TempDir(), "log")
				args := []string{"-f", "-qq", "-o", log, "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", call, n)}
				for _, p := range []string{"", "full", "full/state.json", "full/state.json.new", "full/status", "full/start", "full/result.json"} {
					args = append(args, "-P", filepath.Join(string(d), p))
				}
				cmd := exec.CommandContext(testContext(t), strace, append(args, exe)...)
				cmd.Env = append(os.Environ(), testutil.RoleEnv+"=broken disk", rootEnv+"="+root, dirEnv+"="+string(d))
				out, err := cmd.CombinedOutput()
				said := strings.TrimSpace(string(out))
				calls, _ := os.ReadFile(log)
				injected := strings.Contains(string(calls), "(INJECTED)")
				if err != nil || said != "done" && !strings.HasPrefix(said, "error: ") {
					t.Errorf("call %d: %v, %s\n%s", n, err, said, calls)
				}
				if said != "done" {
					failed++
				}
				if !injected && said != "done" {
					t.Errorf("without a fault: %s", said)
				}
				d.clean(t, n)
				if !injected || n > 60 {
					t.Logf("%d calls", n-1)
					return
				}
			}
		})
	}
	if failed < 3 {
		t.Errorf("only %d starts failed", failed)
	}
}

// clean has Recover, or Remove, take away what a fault has left, and looks whether that is all.
func (d StateDir) clean(t *testing.T, n int) {
	t.Helper()
	ctx := testContext(t)
	var left []string
	if !testutil.Eventually(testTime/4, func() bool {
		if _, err := d.Recover(ctx); err != nil {
			left = []string{err.Error()}
			return false
		}
		list, err := d.List(ctx)
		if err != nil {
			left = []string{err.Error()}
			return false
		}
		for _, i := range list {
			c, err := d.Load(ctx, i.ID)
			if err == nil {
				err = c.Remove(ctx)
			}
			if err != nil {
				left = []string{err.Error()}
				return false
			}
		}
		left = nil
		files, _ := os.ReadDir(string(d))
		for _, f := range files {
			left = append(left, f.Name())
		}
		return len(left) == 0
	}) {
		t.Errorf("call %d: left %q", n, left)
	}
}
