package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// verityDisk mounts an empty ext4 that has fs-verity, and returns where, and the file that it is in:
//
//	truncate -s 16M f; mkfs.ext4 -b 4096 -O verity,^has_journal,^resize_inode,^metadata_csum,^64bit -N 256 -m 0 f; zstd -19 f
func verityDisk(t *testing.T) (dir string, disk *os.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk")
	}
	testutil.NeedLoop(t)
	packed := must[*os.File](t)(os.Open("testdata/verity.ext4.zst"))
	defer packed.Close()
	z := must[*zstd.Decoder](t)(zstd.NewReader(packed))
	defer z.Close()
	disk = must[*os.File](t)(os.Create(filepath.Join(t.TempDir(), "disk")))
	t.Cleanup(func() { disk.Close() })
	must[int64](t)(io.Copy(disk, z))
	loop := must[*os.File](t)(attachLoop(disk, 0))
	defer loop.Close()
	fs, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("no file system ext4 here: %v", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, "source", loop.Name()), unix.FsconfigCreate(fs)); err != nil {
		t.Fatal(err)
	}
	mnt := must[int](t)(unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)) // attached nowhere, so that no other program sees it
	t.Cleanup(func() { unix.Close(mnt) })
	dir = fmt.Sprintf("/proc/self/fd/%d", mnt)
	probe := filepath.Join(dir, "probe")
	if err := os.WriteFile(probe, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if sum := must[string](t)(enableVerity(probe)); sum == "" {
		t.Skip("this kernel has no fs-verity")
	}
	return dir, disk
}

// TestErofsVerity has the kernel verify the file of a layer: it is what was written, and what is not is no longer read.
func TestErofsVerity(t *testing.T) {
	testutil.NoLeaks(t)
	dir, disk := verityDisk(t)
	ctx := context.Background()
	s := must[*Store](t)(Open(filepath.Join(dir, "store"), Options{}))
	t.Cleanup(func() { s.Close() })
	noise := make([]byte, 64<<10)
	rand.New(rand.NewSource(7)).Read(noise)
	putImage(t, s, "test", plain(layer(t, file("noise", string(noise)))))
	dirs := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{}))
	u := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true, Durable: true}))
	path := u.Blobs[0]
	sameTree(t, "verified", treeOfDir(t, dirs.Dirs[0]), treeOfBlob(t, path), nil)
	m := must[*mark](t)(s.readMark(u.keys[0]))
	if m.Blob.Verity == "" {
		t.Fatal("the mark has no digest of fs-verity")
	}
	if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		f.Close()
		t.Error("the file can be written to")
	}
	faults := func(want error) {
		t.Helper()
		got, err := s.Verify(ctx)
		if err != nil || (len(got) == 1) != (want != nil) || want != nil && (!errors.Is(got[0].Err, want) || got[0].Layer != u.keys[0]) {
			t.Errorf("%+v, %v; want %v", got, err, want)
		}
	}
	faults(nil)

	data := must[[]byte](t)(os.ReadFile(path))
	damageDisk(t, disk, path, noise[8192:8192+4096])
	forget(t, filepath.Join(dirs.Dirs[0], "noise"))
	if got := must[[]byte](t)(os.ReadFile(filepath.Join(dirs.Dirs[0], "noise"))); !bytes.Equal(got, noise) {
		t.Error("the layer's directory was damaged too")
	}
	if got, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
		t.Errorf("%d bytes of a damaged file were read: %v", len(got), err)
	}
	faults(unix.EIO)
	if got := must[[]Fault](t)(s.Repair(ctx)); len(got) != 1 {
		t.Errorf("%v", got)
	}
	u = must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true}))
	if again := must[[]byte](t)(os.ReadFile(path)); !bytes.Equal(again, data) {
		t.Error("made again, it is another file")
	}
	faults(nil)

	// The same bytes, which the kernel does not verify.
	if err := errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.openBlobFile(u.keys[0], m.Blob); !errors.Is(err, ErrDigest) {
		t.Errorf("a file without fs-verity in its place: %v", err)
	}
}

// damageDisk changes one bit of a block of a file where it lies on the disk, and has the kernel forget what it read of the file.
func damageDisk(t *testing.T, disk *os.File, path string, block []byte) {
	t.Helper()
	f := must[*os.File](t)(os.Open(path))
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(must[[]byte](t)(io.ReadAll(f)), block)
	if at < 0 {
		t.Fatal("the block is not in the file")
	}
	off := onDisk(t, f, int64(at))
	buf := make([]byte, len(block))
	if _, err := disk.ReadAt(buf, off); err != nil || !bytes.Equal(buf, block) {
		t.Fatalf("the block is not at %d on the disk: %v", off, err)
	}
	buf[100] ^= 1
	if _, err := disk.WriteAt(buf, off); err != nil {
		t.Fatal(err)
	}
	forget(t, path)
}

// forget has the kernel read a file from the disk when it is read next.
func forget(t *testing.T, path string) {
	t.Helper()
	f := must[*os.File](t)(os.Open(path))
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// onDisk tells where on its disk a byte of a file is.
func onDisk(t *testing.T, f *os.File, at int64) int64 {
	t.Helper()
	const fsIocFiemap = 0xc020660b
	type extent struct { // struct fiemap_extent
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
	m := struct { // struct fiemap with room for one extent
		start, length                 uint64
		flags, mapped, count, reserve uint32
		extent                        extent
	}{start: uint64(at), length: 1, count: 1}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&m))); errno != 0 || m.mapped != 1 {
		t.Fatalf("FIEMAP: %v, %d extents", errno, m.mapped)
	}
	return int64(m.extent.physical) + at - int64(m.extent.logical)
}
