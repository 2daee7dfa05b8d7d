package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// The main thread never ends, and what it has is what /proc/self shows to all tests: so it is kept from them, who change threads for good.
func init() { runtime.LockOSThread() }

// ownMounts gives the test a thread with a mount namespace of its own.
func ownMounts(t *testing.T) {
	t.Helper()
	testutil.NeedErofs(t)
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")); err != nil {
		t.Fatal(err)
	}
}

// mountsBelow counts the mounts of this thread below a directory.
func mountsBelow(t *testing.T, dir string) int {
	t.Helper()
	data := must[[]byte](t)(os.ReadFile("/proc/thread-self/mountinfo"))
	return strings.Count(string(data), " "+dir)
}

// TestErofsMount mounts files of layers in all ways that kernels need: they show what the directories have.
func TestErofsMount(t *testing.T) {
	ownMounts(t)
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "test", erofsLayers(t)...)
	dirs := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{}))
	u := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true}))
	for i, key := range u.keys {
		b := must[*blobFile](t)(s.openBlobFile(key, u.marks[i]))
		fd := must[int](t)(mountEROFS(b.file))
		b.file.Close()
		m := must[*blobMount](t)(s.attachBlob(fd, key))
		unix.Close(fd)
		sameTree(t, key, treeOfDir(t, dirs.Dirs[i]), treeOfDir(t, filepath.Join(m.at, dirTree)), must[*mark](t)(s.readMark(dirs.keys[i])).Implied)
		if err := s.tidy(); err != nil || mountsBelow(t, s.dir) != 1 {
			t.Errorf("used and cleared: %v", err)
		}
		if err := m.close(); err != nil || mountsBelow(t, s.dir) != 0 {
			t.Errorf("%d left mounted, %v", mountsBelow(t, s.dir), err)
		}
	}
	// Of a program that was killed.
	b := must[*blobFile](t)(s.openBlobFile(u.keys[0], u.marks[0]))
	defer b.file.Close()
	fd := must[int](t)(mountEROFS(b.file))
	m := must[*blobMount](t)(s.attachBlob(fd, u.keys[0]))
	unix.Close(fd)
	m.dir.Close()
	m.lock.Close()
	again := must[*Store](t)(Open(s.dir, Options{}))
	again.Close()
	if _, err := os.Lstat(m.at); !errors.Is(err, os.ErrNotExist) || mountsBelow(t, s.dir) != 0 {
		t.Errorf("%d left mounted, %v", mountsBelow(t, s.dir), err)
	}
	if err := clearStaleMount(m.at); err != nil {
		t.Errorf("another has just removed it: %v", err)
	}
	files, release, err := s.holdBlobs(u.keys, u.marks)
	if err != nil || len(files) != len(u.keys) {
		t.Fatal(err)
	}
	more, releaseMore, err := s.holdBlobs(u.keys[:1], u.marks)
	if err != nil || more[0] != files[0] {
		t.Errorf("mounted twice, %v", err)
	}
	// The file is damaged, removed and made again: who comes now gets the new one, and who has the old one keeps it.
	data := must[[]byte](t)(os.ReadFile(u.Blobs[0]))
	if err := errors.Join(os.Remove(u.Blobs[0]), os.WriteFile(u.Blobs[0], data, 0o600)); err != nil {
		t.Fatal(err)
	}
	unverified := *u.marks[0]
	unverified.Verity = ""
	anew, releaseAnew, err := s.holdBlobs(u.keys[:1], []*blobMark{&unverified})
	if err != nil || anew[0] == files[0] {
		t.Fatalf("the old file is still mounted, %v", err)
	}
	if err := errors.Join(release(), releaseMore()); err != nil || len(s.mounts.of) != 1 {
		t.Errorf("%v, %v", s.mounts.of, err)
	}
	if _, err := anew[0].Stat(); err != nil {
		t.Error(err)
	}
	if err := releaseAnew(); err != nil || len(s.mounts.of) != 0 {
		t.Errorf("%v, %v", s.mounts.of, err)
	}
}

// TestErofsLoop mounts by a loop device, which goes with the mount.
func TestErofsLoop(t *testing.T) {
	ownMounts(t)
	testutil.NeedLoop(t)
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "test", erofsLayers(t)...)
	u := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true}))
	b := must[*blobFile](t)(s.openBlobFile(u.keys[0], u.marks[0]))
	defer b.file.Close()
	loop := must[*os.File](t)(attachLoop(b.file, unix.LO_FLAGS_READ_ONLY))
	backing := "/sys/block/" + filepath.Base(loop.Name()) + "/loop/backing_file"
	fd, err := mountSource(loop.Name())
	loop.Close()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(backing); err != nil || !strings.Contains(string(data), s.dir) {
		t.Errorf("%q, %v", data, err)
	}
	unix.Close(fd)
	if !testutil.Eventually(testutil.Time(time.Minute), func() bool {
		data, _ := os.ReadFile(backing)
		return !strings.Contains(string(data), s.dir)
	}) {
		t.Error("the device stays")
	}
}

// TestErofsRefusesChanged mounts nothing whose mark does not fit.
func TestErofsRefusesChanged(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "test", erofsLayers(t)...)
	u := must[*Unpacked](t)(s.Unpack(context.Background(), "test", UnpackOptions{EROFS: true}))
	other := *u.marks[0]
	other.Verity = "sha256:" + strings.Repeat("0", 64)
	if _, _, err := s.holdBlobs(u.keys[:1], []*blobMark{&other}); !errors.Is(err, ErrDigest) {
		t.Errorf("%v", err)
	}
	other = *u.marks[0]
	other.Size++
	if _, _, err := s.holdBlobs(u.keys[:1], []*blobMark{&other}); !errors.Is(err, ErrSize) {
		t.Errorf("%v", err)
	}
}
