package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// blobMount is a file of EROFS that is mounted.
type blobMount struct {
	key  string
	file os.FileInfo // what is mounted
	dir  *os.File    // its root
	at   string      // where it is attached; empty: nowhere, and it ends with dir
	lock *os.File    // of at
	refs int
}

// mountBlob mounts the file of a layer. It ends with close, or, where it is attached nowhere, with the program.
func (s *Store) mountBlob(key string, m *blobMark) (*blobMount, error) {
	b, err := s.openBlobFile(key, m)
	if err != nil {
		return nil, err
	}
	defer b.file.Close()
	fi, err := b.file.Stat()
	if err != nil {
		return nil, err
	}
	fd, err := mountEROFS(b.file)
	if err != nil {
		return nil, mountNeeds(err)
	}
	var made *blobMount
	if layersDetached(fd) {
		made = &blobMount{dir: os.NewFile(uintptr(fd), s.layerDir(key))}
	} else {
		made, err = s.attachBlob(fd, key)
		unix.Close(fd)
	}
	if err != nil {
		return nil, err
	}
	made.key, made.file = key, fi
	return made, nil
}

// fresh says that the layer's file is still the one that is mounted: [Store.Repair] removes damaged ones, and then it is made again. The one that is
// mounted keeps its inode number.
func (m *blobMount) fresh(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && os.SameFile(fi, m.file)
}

// layersDetached says whether an overlay can be made of a mount that is attached nowhere, which came with clones of such mounts (Linux 6.15).
func layersDetached(fd int) bool {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return false
	}
	unix.Close(clone)
	return true
}

// mountEROFS mounts a file, attached nowhere: as it is from Linux 6.12 on where the kernel has CONFIG_EROFS_FS_BACKED_BY_FILE, by a loop device that goes with the mount
// otherwise.
func mountEROFS(f *os.File) (int, error) {
	fd, err := mountSource(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != unix.ENOTBLK {
		return fd, sysErr("mount erofs", err)
	}
	loop, err := attachLoop(f, unix.LO_FLAGS_READ_ONLY)
	if err != nil {
		return -1, err
	}
	defer loop.Close()
	fd, err = mountSource(loop.Name())
	return fd, sysErr("mount erofs", err)
}

// probeErofs tells who may mount no file system, and kernels without this one, before anything is made.
func probeErofs() error {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return mountNeeds(sysErr("fsopen", err))
	}
	return unix.Close(fs)
}

// mountSource mounts a file or a device.
func mountSource(source string) (int, error) {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return -1, err
	}
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
}

// attachLoop gives a file a loop device, which the kernel takes away with its last user (LO_FLAGS_AUTOCLEAR; loop(4), LOOP_CONFIGURE: Linux 5.8).
func attachLoop(f *os.File, flags uint32) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	mode := os.O_RDWR
	if flags&unix.LO_FLAGS_READ_ONLY != 0 {
		mode = os.O_RDONLY
	}
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: flags | unix.LO_FLAGS_AUTOCLEAR}}
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("ioctl LOOP_CTL_GET_FREE", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if err != unix.EBUSY { // another has just taken it
			return nil, os.NewSyscallError("ioctl LOOP_CONFIGURE", err)
		}
	}
	return nil, os.NewSyscallError("ioctl LOOP_CONFIGURE", unix.EBUSY)
}

// attachBlob attaches a mount in the store, for kernels that need it.
func (s *Store) attachBlob(fd int, key string) (_ *blobMount, err error) {
	at, err := os.MkdirTemp(s.path(dirIngest), mountPrefix)
	if err != nil {
		return nil, err
	}
	m := &blobMount{at: at}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.lock, err = os.OpenFile(filepath.Join(at, fileMounted), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if err := flock(m.lock, true); err != nil {
		return nil, err
	}
	dir := filepath.Join(at, dirTree)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, os.NewSyscallError("move_mount", err)
	}
	root, err := linux.RetryFD(func() (int, error) { return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, sysErr("open", err)
	}
	m.dir = os.NewFile(uintptr(root), s.layerDir(key))
	return m, nil
}

// close ends the mount. Overlays that were made of it keep the file system.
func (m *blobMount) close() error {
	var faults []error
	if m.dir != nil {
		faults = append(faults, m.dir.Close())
	}
	if m.at != "" {
		faults = append(faults, clearMount(m.at))
	}
	if m.lock != nil {
		faults = append(faults, m.lock.Close())
	}
	return errors.Join(faults...)
}

// clearMount removes a directory of attachBlob's and what is mounted in it.
func clearMount(at string) error {
	err := unix.Unmount(filepath.Join(at, dirTree), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return sysErr("umount", err)
	}
	return os.RemoveAll(at)
}

// clearStaleMount removes what a killed program left mounted. What is in use stays.
func clearStaleMount(at string) error {
	// Never made: that would be in the way of another that is removing the directory in this moment.
	lock, err := tryLock(filepath.Join(at, fileMounted), os.O_RDWR, true)
	switch {
	case errors.Is(err, errWouldBlock):
		return nil
	case notExist(err): // it was killed before it had one, or another is removing it: nobody else makes a mount while the caller has the store alone
		return clearMount(at)
	case err != nil:
		return err
	}
	defer lock.Close()
	return clearMount(at)
}

// holdBlobs mounts the files of layers, the topmost first, for one more user. Mounts are shared by all users of one Store, as long as what is mounted is
// the layer's file.
func (s *Store) holdBlobs(keys []string, marks []*blobMark) (dirs []*os.File, release func() error, err error) {
	s.mounts.Lock()
	defer s.mounts.Unlock()
	var held []*blobMount
	for i, key := range keys {
		m := s.mounts.of[key]
		if m == nil || !m.fresh(s.layerDir(key)) {
			if m, err = s.mountBlob(key, marks[i]); err != nil {
				return nil, nil, errors.Join(err, s.dropLocked(held))
			}
			if s.mounts.of == nil {
				s.mounts.of = map[string]*blobMount{}
			}
			s.mounts.of[key] = m
		}
		m.refs++
		held = append(held, m)
		dirs = append(dirs, m.dir)
	}
	return dirs, func() error { return s.dropBlobs(held) }, nil
}

func (s *Store) dropBlobs(held []*blobMount) error {
	s.mounts.Lock()
	defer s.mounts.Unlock()
	return s.dropLocked(held)
}

func (s *Store) dropLocked(held []*blobMount) error {
	var faults []error
	for _, m := range held {
		if m.refs--; m.refs > 0 {
			continue
		}
		if s.mounts.of[m.key] == m {
			delete(s.mounts.of, m.key)
		}
		faults = append(faults, m.close())
	}
	return errors.Join(faults...)
}
