package journal

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// compactAt is the size from which a file is emptied when nothing in it is open, and rewritten when little is.
const compactAt = 64 << 10

const suffix = ".journal"

// Journal is the file of this process. It is safe for use by many goroutines.
type Journal struct {
	dir  *os.File
	name string
	boot string

	mu   sync.Mutex
	file *os.File // locked; nil once closed
	size int64
	next uint64
	open map[uint64][]byte // the lines of open entries
	live int64             // bytes in open
	buf  []byte
}

// ErrClosed is returned for a journal that was closed.
var ErrClosed = errors.New("journal: closed")

// Open makes a journal for this process in dir, which [Dir] returned. A process may have several.
func Open(dir *os.File) (*Journal, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	start, err := startTime()
	if err != nil {
		return nil, err
	}
	own, err := dupFile(dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{dir: own, boot: boot, open: map[uint64][]byte{}}
	for n := 0; ; n++ {
		j.name = fmt.Sprintf("%d-%d", os.Getpid(), start)
		if n > 0 {
			// Taken by another journal of this process, by a process of an earlier boot, or of another pid namespace.
			j.name += "-" + strconv.Itoa(n)
		}
		j.name += suffix
		j.file, err = create(own, j.name)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, errTaken) || n > 10000 {
			own.Close()
			return nil, fmt.Errorf("journal: %w", &os.PathError{Op: "create", Path: filepath.Join(dir.Name(), j.name), Err: err})
		}
	}
	if err := j.write([]byte(header(boot))); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

// errTaken: someone recovered the file between its creation and its lock. errLocked is the same, while he has it still.
var (
	errTaken  = errors.New("taken by a recovery")
	errLocked = fmt.Errorf("%w that is under way", errTaken)
)

// create makes a locked file. Between creation and lock another process may take it for a dead one's and remove it;
// then it is not ours.
func create(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if err := lockLinked(dir, name, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockLinked takes the lock of f and verifies that f is still what name stands for.
func lockLinked(dir *os.File, name string, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err == unix.EWOULDBLOCK {
			return errLocked
		}
		if err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
	var here, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &here); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	err := unix.Fstatat(int(dir.Fd()), name, &there, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || here.Dev != there.Dev || here.Ino != there.Ino {
		return errTaken
	}
	return nil
}

// Add records data under an owner that can undo it. It is called before the thing is made. data is one line of JSON, at
// most 64 KiB, in a format version that the owner knows; owner consists of a-z, 0-9, '.', '-' and '_'.
func (j *Journal) Add(owner string, version int, data []byte) (id uint64, err error) {
	e := Entry{Owner: owner, Version: version, Data: data}
	if err := e.check(); err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return 0, ErrClosed
	}
	e.ID = j.next + 1
	j.buf = e.appendTo(j.buf[:0])
	if err := j.write(j.buf); err != nil {
		return 0, err
	}
	j.next++
	j.open[e.ID] = append([]byte(nil), j.buf...)
	j.live += int64(len(j.buf))
	return e.ID, nil
}

// Done strikes out an entry, after the thing is gone. An unknown id is an error.
func (j *Journal) Done(id uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return ErrClosed
	}
	line, ok := j.open[id]
	if !ok {
		return fmt.Errorf("%w: %d is not open", ErrEntry, id)
	}
	j.buf = appendDone(j.buf[:0], id)
	if err := j.write(j.buf); err != nil {
		return err
	}
	delete(j.open, id)
	j.live -= int64(len(line))
	return j.compact()
}

// write appends b with one write(2). A part that reached the file is cut off again, so that the next entry begins a line.
func (j *Journal) write(b []byte) error {
	for {
		n, err := unix.Write(int(j.file.Fd()), b)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n == len(b):
			j.size += int64(n)
			return nil
		case err == nil:
			err = unix.ENOSPC
		}
		err = &os.PathError{Op: "write", Path: filepath.Join(j.dir.Name(), j.name), Err: err}
		if n > 0 {
			err = errors.Join(err, unix.Ftruncate(int(j.file.Fd()), j.size))
		}
		return fmt.Errorf("journal: %w", err)
	}
}

// compact keeps the file small: once it is large it is emptied when nothing is open, and rewritten when most of it is
// struck out.
func (j *Journal) compact() error {
	if j.size < compactAt {
		return nil
	}
	if len(j.open) == 0 {
		size := int64(len(header(j.boot)))
		if err := unix.Ftruncate(int(j.file.Fd()), size); err != nil {
			return fmt.Errorf("journal: compact %s: %w", j.name, err)
		}
		j.size = size
		return nil
	}
	if j.size < 4*j.live {
		return nil
	}
	return j.rewrite()
}

// rewrite replaces the file by one that holds the open entries only. Both files are locked at the moment of the rename,
// so the name always stands for a locked and complete file.
func (j *Journal) rewrite() error {
	tmp := j.name + ".new"
	f, err := create(j.dir, tmp)
	if errors.Is(err, errTaken) || errors.Is(err, unix.EEXIST) {
		return nil // by somebody who looks for files of the dead: it is for the next time
	}
	if err != nil {
		return fmt.Errorf("journal: compact %s: %w", j.name, err)
	}
	b := []byte(header(j.boot))
	for _, id := range slices.Sorted(maps.Keys(j.open)) {
		b = append(b, j.open[id]...)
	}
	n, err := unix.Write(int(f.Fd()), b)
	if err == nil && n != len(b) {
		err = unix.ENOSPC
	}
	if err == nil {
		err = unix.Renameat(int(j.dir.Fd()), tmp, int(j.dir.Fd()), j.name)
	}
	if err != nil {
		unix.Unlinkat(int(j.dir.Fd()), tmp, 0)
		f.Close()
		return fmt.Errorf("journal: compact %s: %w", j.name, err)
	}
	j.file.Close()
	j.file, j.size = f, int64(len(b))
	return nil
}

// Close ends the use of the journal. With no entry open the file is removed; otherwise it is left for a recovery, as if
// the process had died. Closing again is harmless.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	var err error
	if len(j.open) == 0 {
		err = unix.Unlinkat(int(j.dir.Fd()), j.name, 0)
	}
	err = errors.Join(err, j.file.Close(), j.dir.Close())
	j.file = nil
	return err
}

func dupFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// BootID returns the id that the kernel chose for this boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("journal: boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// startTime returns when this process was started, in clock ticks since boot: field 22 of /proc/self/stat, the 20th after
// the command name, which may hold anything but ends at the last parenthesis.
func startTime() (uint64, error) {
	return startTimeOf("self")
}

func startTimeOf(pid string) (uint64, error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, fmt.Errorf("journal: start time: %w", err)
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("journal: start time: %w: /proc/self/stat", ErrCorrupt)
	}
	return strconv.ParseUint(f[19], 10, 64)
}
