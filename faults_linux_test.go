package caisson

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// faultEnv names the fault that a role has around it.
const faultEnv = "CAISSON_TEST_FAULT"

func init() { roles["fault"] = faultRole }

// faults are programs on machines that are full, or that cannot be written to. Each runs in a mount namespace of its own, for ordinary
// users in a user namespace too, with a small file system at dir.
var faults = map[string]func(f *faulty){
	"state directory is full":           func(f *faulty) { f.stateFull("size=2m", f.fill) },
	"state directory has no inode left": func(f *faulty) { f.stateFull("size=2m,nr_inodes=64", f.fillInodes) },
	"state directory is read-only":      (*faulty).stateReadOnly,
	"journals are full":                 (*faulty).runFull,
	"log is full":                       (*faulty).logFull,
	"log is read-only":                  (*faulty).logReadOnly,
	"bundle is full":                    (*faulty).bundleFull,
}

// TestFullAndReadOnly: each fault is a typed error that tells which directory, and leaves nothing in it.
func TestFullAndReadOnly(t *testing.T) {
	for name := range faults {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			cmd := testutil.Role("fault", faultEnv+"="+name, rootEnv+"="+testutil.Busybox(t), dirEnv+"="+t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			if !isRoot() {
				cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
				cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
			}
			out, err := cmd.Output()
			if err != nil || strings.TrimSpace(string(out)) != "" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func faultRole() {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Println("private:", err)
		return
	}
	f := &faulty{dir: os.Getenv(dirEnv), root: WithRootfs(rootfs.Dir(os.Getenv(rootEnv))), ctx: context.Background()}
	faults[os.Getenv(faultEnv)](f)
}

// faulty is a program in which a fault is tried. What it prints is a failure of the test.
type faulty struct {
	ctx  context.Context
	dir  string
	root Option
}

func (f *faulty) errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (f *faulty) must(err error) {
	if err != nil {
		f.errorf("set-up: %v", err)
		os.Exit(0)
	}
}

// mount puts a small file system at a directory.
func (f *faulty) mount(dir, data string) {
	f.must(os.MkdirAll(dir, 0o700))
	f.must(unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, "mode=700,"+data))
}

// fill leaves n pages of the file system at dir.
func (f *faulty) fill(dir string, n int) (undo func()) {
	name := filepath.Join(dir, "filler")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	f.must(err)
	defer file.Close()
	size := int64(0)
	for page := make([]byte, os.Getpagesize()); ; size += int64(len(page)) {
		if _, err := file.Write(page); err != nil {
			break
		}
	}
	f.must(file.Truncate(max(0, size-int64(n*os.Getpagesize()))))
	return func() { f.must(os.Remove(name)) }
}

// fillInodes leaves n files that can be made below dir.
func (f *faulty) fillInodes(dir string, n int) (undo func()) {
	sub := filepath.Join(dir, "filler")
	f.must(os.Mkdir(sub, 0o700))
	i := 0
	for ; ; i++ {
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), nil, 0o600); err != nil {
			break
		}
	}
	for range n {
		i--
		f.must(os.Remove(filepath.Join(sub, fmt.Sprint(i))))
	}
	return func() { f.must(os.RemoveAll(sub)) }
}

// left are the files below dir that the library made.
func (f *faulty) left(dir string) (list []string) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err == nil && d.Name() == "filler":
			return fs.SkipDir
		case err == nil && p != dir:
			list = append(list, p)
		}
		return nil
	})
	return list
}

// detached makes, starts and removes a container that is recorded in dir.
func (f *faulty) detached(dir string) error {
	c, err := New(f.root, WithCommand("/bin/true"), WithID("full"), WithDetached(true), WithStateDir(dir))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Start(f.ctx); err != nil {
		return err
	}
	if _, err := c.Wait(f.ctx); err != nil {
		return err
	}
	return c.Remove(f.ctx)
}

// stateFull leaves a little more each time, until a container can be made, started and removed.
func (f *faulty) stateFull(data string, fill func(string, int) func()) {
	disk, dir := filepath.Join(f.dir, "disk"), filepath.Join(f.dir, "disk/containers")
	f.mount(disk, data)
	f.must(f.detached(dir)) // what the program makes once
	if left := f.left(dir); len(left) > 0 {
		f.errorf("left without a fault: %q", left)
	}
	before := testutil.Take()
	for n := 0; ; n++ {
		undo := fill(disk, n)
		err := f.detached(dir)
		left := f.left(dir)
		undo()
		if n == 0 && err == nil {
			f.errorf("it works on a full file system")
		}
		if len(left) > 0 {
			f.errorf("with room for %d: %v; left %q", n, err, left)
		}
		if growth := f.settled(before); growth != nil {
			f.errorf("with room for %d: %v; left %q", n, err, growth)
		}
		if err == nil {
			return
		}
		f.judge(fmt.Sprint("room for ", n), err, unix.ENOSPC, dir)
		if n > 100 {
			f.errorf("it never works")
			return
		}
	}
}

// settled waits until no more is there than before, and returns what is.
func (f *faulty) settled(before testutil.Inventory) (growth []string) {
	testutil.Eventually(testTime/4, func() bool { growth = before.Growth(testutil.Take()); return len(growth) == 0 })
	return growth
}

// judge looks at an error: it is the library's own, has the errno, and names the directory.
func (f *faulty) judge(when string, err error, want syscall.Errno, dir string) {
	var typed *Error
	if !errors.As(err, &typed) || typed.Remedy == "" || !errors.Is(err, want) || !strings.Contains(err.Error(), dir) {
		f.errorf("%s: %T %v", when, err, err)
	}
}

func (f *faulty) stateReadOnly() {
	disk, dir := filepath.Join(f.dir, "disk"), filepath.Join(f.dir, "disk/containers")
	f.mount(disk, "size=1m")
	f.must(unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	f.judge("to be made", f.detached(dir), unix.EROFS, dir)
	f.must(unix.Mount("", disk, "", unix.MS_REMOUNT, "size=1m"))
	f.must(f.detached(dir))
	f.must(unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	f.judge("there already", f.detached(dir), unix.EROFS, dir)
	if l, err := StateDir(dir).List(f.ctx); err != nil || len(l) > 0 {
		f.errorf("list: %v, %v", l, err)
	}
}

// runFull: a full /run is no reason not to start a container. One that has to be recorded there is refused: in another directory it
// would not be found.
func (f *faulty) runFull() {
	f.mount("/run", "size=64k")
	f.mount("/tmp", "mode=1777,size=64k")
	undo := f.fill("/run", 0)
	f.must(os.Setenv("XDG_RUNTIME_DIR", "/run"))
	plain := func() error {
		c, err := New(f.root, WithCommand("/bin/true"))
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Run(f.ctx)
	}
	// The root filesystem and the program itself may lie below /tmp, which is covered now.
	if _, err := os.Stat(os.Getenv(rootEnv)); err != nil {
		f.root = WithRootfs(rootfs.Host())
	}
	if err := plain(); err != nil {
		f.errorf("full /run: %v", err)
	}
	f.judge("full /run, detached", f.detached(""), unix.ENOSPC, "/run/caisson")
	undoTmp := f.fill("/tmp", 0)
	if err := plain(); err != nil {
		f.errorf("full /run and /tmp: %v", err)
	}
	f.judge("full /run and /tmp, detached", f.detached(""), unix.ENOSPC, "/run/caisson")
	undo()
	undoTmp()
	if left := slices.DeleteFunc(append(f.left("/run"), f.left("/tmp")...), func(p string) bool {
		info, err := os.Stat(p)
		return err == nil && info.IsDir()
	}); len(left) > 0 {
		f.errorf("left: %q", left)
	}
}

// logFull: what cannot be logged is lost, and told; the container goes on.
func (f *faulty) logFull() {
	disk := filepath.Join(f.dir, "disk")
	f.mount(disk, "size=1m")
	c, err := New(f.root, WithCommand("/bin/sh", "-c", "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exit 4"),
		WithLog(LogConfig{Path: filepath.Join(disk, "log")}))
	f.must(err)
	defer c.Close()
	events, cancel := context.WithCancel(f.ctx)
	defer cancel()
	lost := make(chan Event, 1000)
	go func() {
		for e := range c.Events(events) {
			if e.Kind == EventLogLost {
				lost <- e
			}
		}
	}()
	f.fill(disk, 1)
	_ = c.Run(f.ctx)
	r, err := c.Wait(f.ctx)
	if err != nil || r.ExitCode != 4 || r.LogLost == 0 || r.LogLost > 200 {
		f.errorf("%v, %d entries lost, %v", r, r.LogLost, err)
	}
	if e := <-lost; !strings.Contains(e.Detail, unix.ENOSPC.Error()) || !strings.Contains(e.Detail, disk) {
		f.errorf("%+v", e)
	}
}

func (f *faulty) logReadOnly() {
	disk := filepath.Join(f.dir, "disk")
	f.mount(disk, "size=1m")
	f.must(unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	c, err := New(f.root, WithCommand("/bin/true"), WithLog(LogConfig{Path: filepath.Join(disk, "log")}))
	f.must(err)
	defer c.Close()
	f.judge("read-only", c.Run(f.ctx), unix.EROFS, disk)
}

func (f *faulty) bundleFull() {
	disk, dir := filepath.Join(f.dir, "disk"), filepath.Join(f.dir, "disk/bundle")
	f.mount(disk, "size=1m")
	c, err := New(WithRootfs(rootfs.Dir(os.Getenv(rootEnv)).ReadOnly()), WithCommand("/bin/true"))
	f.must(err)
	defer c.Close()
	for n := 0; ; n++ {
		undo := f.fill(disk, n)
		err := c.WriteBundle(f.ctx, dir)
		left := f.left(disk)
		undo()
		if err == nil {
			if n == 0 {
				f.errorf("it works on a full file system")
			}
			return
		}
		f.judge(fmt.Sprint("room for ", n), err, unix.ENOSPC, dir)
		if len(left) > 0 {
			f.errorf("with room for %d: %v; left %q", n, err, left)
		}
		if n > 100 {
			f.errorf("it never works")
			return
		}
	}
}
