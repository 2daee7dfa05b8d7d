package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/linux"
)

// Lock takes the lock that orders changes, waiting for it if wait is set; otherwise a lock held by another is ErrBusy. A
// directory that has been removed meanwhile is ErrNotFound. The lock is the process's open file: it ends with Unlock, Close
// or the process.
func (e *Entry) Lock(wait bool) error {
	if wait {
		return e.flock(unix.LOCK_EX)
	}
	return e.flock(unix.LOCK_EX | unix.LOCK_NB)
}

func (e *Entry) flock(how int) error {
	return e.use(func(own, dir int) error {
		for {
			err := unix.Flock(own, how)
			if err == nil {
				break
			}
			if err == unix.EWOULDBLOCK {
				return fmt.Errorf("%s: %w", e.Path(), ErrBusy)
			}
			if err != unix.EINTR {
				return &os.PathError{Op: "flock", Path: e.Path(), Err: err}
			}
		}
		if !linked(own, dir, e.ID) {
			_ = unix.Flock(own, unix.LOCK_UN)
			return fmt.Errorf("%s: %w", e.Path(), ErrNotFound)
		}
		return nil
	})
}

// use calls f with the descriptors of the container's directory and of the one that it is in, which stay open meanwhile: their numbers could else be
// another container's by then. After Close the error is os.ErrClosed.
func (e *Entry) use(f func(own, dir int) error) error {
	return linux.Control(e.own, func(own int) error {
		return linux.Control(e.dir, func(dir int) error { return f(own, dir) })
	})
}

// Probe asks whether somebody holds the lock, which is ErrBusy then. Those who ask do not take each other for one. Who got
// nil gives the lock back with Unlock: as long as it is shared, nobody changes anything.
func (e *Entry) Probe() error { return e.flock(unix.LOCK_SH | unix.LOCK_NB) }

// LockSoon takes the lock, waiting for it at most that long, or until ctx ends. Then one held by another is ErrBusy.
func (e *Entry) LockSoon(ctx context.Context, patience time.Duration) error {
	for end, pause := time.Now().Add(patience), time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := e.Lock(false)
		if !errors.Is(err, ErrBusy) || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		time.Sleep(pause)
	}
}

// LockUntil takes the lock, waiting for it until ctx ends, whose error it is then.
func (e *Entry) LockUntil(ctx context.Context) error {
	if ctx.Done() == nil {
		return e.Lock(true)
	}
	for {
		err := e.LockSoon(ctx, time.Hour)
		if !errors.Is(err, ErrBusy) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// readerPatience bounds the wait for those who look whether a directory is a leftover, or take it away.
const readerPatience = 10 * time.Second

// lockToMake takes the lock for who makes a container. Who looks at the directory, or takes a leftover away, holds the lock for
// moments, which are waited for. ErrBusy: another program makes the container, or has it.
func (e *Entry) lockToMake() error {
	for end, pause := time.Now().Add(readerPatience), 100*time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		err := e.Lock(false)
		if !errors.Is(err, ErrBusy) || time.Now().After(end) {
			return err
		}
		if _, rerr := e.Read(); !errors.Is(rerr, ErrNotFound) {
			if perr := e.Probe(); perr != nil {
				return perr
			}
			e.Unlock()
		}
		time.Sleep(pause)
	}
}

// Unlock gives the lock back.
func (e *Entry) Unlock() {
	_ = e.use(func(own, _ int) error { return unix.Flock(own, unix.LOCK_UN) })
}

// linked reports whether the directory is still what its name stands for.
func (e *Entry) linked() (is bool) {
	_ = e.use(func(own, dir int) error { is = linked(own, dir, e.ID); return nil })
	return is
}

func linked(own, dir int, name string) bool {
	var here, there unix.Stat_t
	if unix.Fstat(own, &here) != nil || unix.Fstatat(dir, name, &there, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	return here.Dev == there.Dev && here.Ino == there.Ino
}

// openat opens a file of the directory.
func (e *Entry) openat(name string, flags int, mode uint32) (fd int, err error) {
	err = e.use(func(own, _ int) (err error) {
		fd, err = unix.Openat(own, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// Read returns the record. It needs no lock: records are replaced as a whole. A directory without one is ErrNotFound, and so is one whose record came to the
// disk not at all, or in part, before the machine failed.
func (e *Entry) Read() (*Record, error) {
	b, err := e.readFile(recordName, maxRecord)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", e.Path(), ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.Trim(b, "\x00")) == 0 { // the machine failed before it came to the disk
		return nil, fmt.Errorf("%s: %w", e.Path(), ErrNotFound)
	}
	r, err := e.parse(b)
	if errors.Is(err, ErrCorrupt) && e.cutByFailure(b) {
		return nil, fmt.Errorf("%s: %w", e.Path(), ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(e.Path(), recordName), err)
	}
	return r, nil
}

// cutByFailure reports whether b is the beginning of a record of an earlier boot: all that it could tell has ended with the machine. One with a monitor, whose wishes
// outlive the machine, is left to its owner.
func (e *Entry) cutByFailure(b []byte) bool {
	b = bytes.TrimRight(b, "\x00") // blocks that were counted and not written
	var syntax *json.SyntaxError
	if err := json.Unmarshal(b, new(json.RawMessage)); !errors.As(err, &syntax) || syntax.Offset < int64(len(b)) {
		return false
	}
	before := bootOf(b)
	now, err := journal.BootID()
	if before == "" || err != nil || before == now {
		return false
	}
	fd, err := e.openat(WishName, unix.O_PATH, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err == unix.ENOENT
}

// bootOf returns the boot id in the beginning of a record: {"version": 1, "id": "web", "bootID": "...; or "".
func bootOf(b []byte) string {
	d := json.NewDecoder(bytes.NewReader(b))
	var words [7]string
	for i := range words {
		t, err := d.Token()
		if err != nil {
			return ""
		}
		words[i], _ = t.(string)
	}
	if words[5] != "bootID" {
		return ""
	}
	return words[6]
}

// parse parses what has been read, unless that is what was read before: a look at a container reads its record more than once, and
// parsing takes longer than reading. The record is the caller's own.
func (e *Entry) parse(b []byte) (*Record, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.parsed == nil || !bytes.Equal(b, e.text) {
		r, err := Parse(e.ID, b)
		if err != nil {
			return nil, err
		}
		e.text, e.parsed = b, r
	}
	return e.parsed.copy(), nil
}

// forget drops what was read before: with a seccomp profile it is large, and entries live as long as their containers.
func (e *Entry) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text, e.parsed = nil, nil
}

// Status returns what stage and keeper have written. Of a container that has been removed meanwhile it is ErrNotFound.
func (e *Entry) Status() (Status, error) {
	b, err := e.readFile(StatusName, statusSize)
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := e.Read(); errors.Is(gone, ErrNotFound) {
			return Status{}, gone
		}
	}
	if err != nil {
		return Status{}, err
	}
	s, err := ParseStatus(b)
	if err != nil {
		return s, fmt.Errorf("%s: %w", filepath.Join(e.Path(), StatusName), err)
	}
	return s, nil
}

// readFile reads a regular file of the user's own, of at most max bytes.
func (e *Entry) readFile(name string, max int) ([]byte, error) {
	path := filepath.Join(e.Path(), name)
	fd, err := e.openat(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) // no os.File: it would be offered to the poller, which takes no regular files
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%w: %s is not a regular file of user %d that nobody else can write", journal.ErrUnsafeDir, path, os.Geteuid())
	}
	b := make([]byte, 0, min(st.Size, int64(max))+1)
	for {
		n, err := linux.RetryFD(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if err != nil {
			return b, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) > max {
			return b, fmt.Errorf("%s: %w: more than %d bytes", path, ErrCorrupt, max)
		}
		if int64(len(b)) == st.Size && len(b) < cap(b) { // there was room for more
			return b, nil
		}
		if len(b) == cap(b) { // it has grown meanwhile
			b = slices.Grow(b, len(b))
		}
	}
}

// Write replaces the record. The caller holds the lock.
func (e *Entry) Write(r *Record) error {
	b, err := r.Format()
	if err != nil {
		return err
	}
	f, err := e.create(tmpName)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	// Before the end a record holds no longer than the machine runs; and in memory nothing can be kept.
	if r.Phase == Stopped && e.onDisk() {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	e.forget()
	if r.lasts() {
		return e.rename(recordName)
	}
	return e.exchange(recordName)
}

func (e *Entry) onDisk() bool {
	var st unix.Statfs_t
	if e.use(func(own, _ int) error { return unix.Fstatfs(own, &st) }) != nil {
		return true
	}
	return int64(st.Type) != unix.TMPFS_MAGIC && int64(st.Type) != unix.RAMFS_MAGIC
}

// create makes a file, replacing what a killed program may have left.
func (e *Entry) create(name string) (*os.File, error) {
	path := filepath.Join(e.Path(), name)
	fd, err := e.openat(name, unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// CreateStatus makes the status file, or replaces that of an earlier run, of which others may be reading at this moment.
// The caller holds the lock.
func (e *Entry) CreateStatus() (*os.File, error) {
	f, err := e.create(tmpName)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(NewStatus()); err == nil {
		err = e.rename(StatusName)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// rename gives the new file its name.
func (e *Entry) rename(name string) error {
	if err := e.use(func(own, _ int) error { return unix.Renameat(own, tmpName, own, name) }); err != nil {
		return &os.PathError{Op: "rename", Path: filepath.Join(e.Path(), name), Err: err}
	}
	return nil
}

// exchange is rename for what need not outlive the machine. Where a file takes the name of another, ext4 writes it to the disk first (auto_da_alloc),
// which takes longer than all else about a record; where two exchange their names it does not.
func (e *Entry) exchange(name string) error {
	dir := int(e.own.Fd())
	if err := unix.Renameat2(dir, tmpName, dir, name, unix.RENAME_EXCHANGE); err != nil { // there is none yet, or the file system cannot
		return e.rename(name)
	}
	_ = unix.Unlinkat(dir, tmpName, 0) // what was there before; the next file replaces it
	return nil
}

// Listen makes the socket on which a created container waits. Connections carry packets.
func (e *Entry) Listen() (*os.File, error) { return e.listen(SocketName) }

// ListenControl makes the socket on which a monitor listens.
func (e *Entry) ListenControl() (*os.File, error) {
	f, err := e.listen(ControlName)
	if err != nil {
		return nil, err
	}
	if err := e.use(func(own, _ int) error { return unix.Fchmodat(own, ControlName, 0o600, 0) }); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return f, nil
}

func (e *Entry) listen(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(e.Path(), name))
	err = e.use(func(own, _ int) error {
		_ = unix.Unlinkat(own, name, 0)
		if err := unix.Bind(fd, address(own, name)); err != nil {
			return err
		}
		return unix.Listen(fd, 8)
	})
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "bind", Path: f.Name(), Err: err}
	}
	return f, nil
}

// Dial connects to a created container. Nobody listening is ECONNREFUSED.
func (e *Entry) Dial(ctx context.Context) (int, error) {
	fd, err := e.dial(ctx, SocketName)
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, false))
	}
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// DialControl connects to the container's monitor, by a socket that does not block. Nobody listening is ECONNREFUSED or ENOENT.
func (e *Entry) DialControl(ctx context.Context) (int, error) { return e.dial(ctx, ControlName) }

// dial connects to a socket. As long as nobody there accepts, and as many wait as fit, it tries again, until ctx ends: a connect(2) that waits for
// that by itself could not be ended.
func (e *Entry) dial(ctx context.Context, name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err = e.use(func(own, _ int) error {
			return linux.Retry(func() error { return unix.Connect(fd, address(own, name)) })
		})
		if err != unix.EAGAIN {
			break
		}
		if err = sleep(ctx, pause); err != nil {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "connect", Path: filepath.Join(e.Path(), name), Err: err}
	}
	return fd, nil
}

// sleep waits, at most until ctx ends, whose error it then returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// address goes by the descriptor: paths of sockets have at most 107 bytes.
func address(own int, name string) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(own) + "/" + name}
}

// RemoveSocket removes the socket, when it has served.
func (e *Entry) RemoveSocket() {
	_ = e.use(func(own, _ int) error { return unix.Unlinkat(own, SocketName, 0) })
}

// maxWish bounds what a monitor is handed: files that a container gets are in it.
const maxWish = 64 << 20

// WriteWish keeps what the monitor was handed. A kill leaves what was kept before, and who reads meanwhile sees one of the two. The
// caller holds the lock.
func (e *Entry) WriteWish(b []byte) error {
	if len(b) > maxWish {
		return fmt.Errorf("the wishes for a container with a monitor have %d bytes; at most %d", len(b), maxWish)
	}
	f, err := e.create(tmpName)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return e.rename(WishName)
}

// Wish returns what WriteWish has kept.
func (e *Entry) Wish() ([]byte, error) { return e.readFile(WishName, maxWish) }

// NetworksPath is the file in which networks note what the container's next run is to have again. It is theirs.
func (e *Entry) NetworksPath() string { return filepath.Join(e.Path(), NetworksName) }

// Remove removes the directory. The caller holds the lock. What is not this package's stays, and with it the directory.
func (e *Entry) Remove() error {
	return e.use(func(own, dir int) error {
		// The record goes first: without it the directory is one that nobody needs to keep, wherever a kill or a reader comes between.
		for _, name := range []string{recordName, SocketName, ControlName, StatusName, WishName, NetworksName, NetworksName + ".new", tmpName} {
			if err := unix.Unlinkat(own, name, 0); err != nil && err != unix.ENOENT {
				return &os.PathError{Op: "remove", Path: filepath.Join(e.Path(), name), Err: err}
			}
		}
		if err := unix.Unlinkat(dir, e.ID, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "remove", Path: e.Path(), Err: err}
		}
		return nil
	})
}
