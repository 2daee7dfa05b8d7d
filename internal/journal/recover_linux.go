package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Undoer undoes what an owner recorded. It is told the version and the data of an entry, and returns nil also when the
// thing is gone already or was never made. [ErrKeep] leaves the entry for later without a complaint.
type Undoer interface {
	Undo(ctx context.Context, version int, data []byte) error
}

// UndoFunc makes a function an Undoer.
type UndoFunc func(ctx context.Context, version int, data []byte) error

// Undo calls f.
func (f UndoFunc) Undo(ctx context.Context, version int, data []byte) error {
	return f(ctx, version, data)
}

// ErrKeep is what an Undoer returns for a thing that is meant to stay, such as a container that outlives its program.
var ErrKeep = errors.New("journal: entry is kept")

// UnclaimedError says that an entry of a dead process was kept because nobody that was asked can undo it.
type UnclaimedError struct {
	File  string // the journal
	Entry Entry
}

func (e *UnclaimedError) Error() string {
	return fmt.Sprintf("journal %s: nobody here can undo entry %d of owner %q, version %d; it is kept", e.File, e.Entry.ID, e.Entry.Owner, e.Entry.Version)
}

// UndoError says that an owner failed to undo an entry, which is kept.
type UndoError struct {
	File  string
	Entry Entry
	Err   error
}

func (e *UndoError) Error() string {
	return fmt.Sprintf("journal %s: undo entry %d of owner %q: %v", e.File, e.Entry.ID, e.Entry.Owner, e.Err)
}

// Unwrap returns what the owner answered.
func (e *UndoError) Unwrap() error { return e.Err }

// Recover undoes what dead processes left in dir, the newest entry of each first, and removes files in which nothing is
// left. Files of living processes, this one included, are not touched. It returns how many entries were undone, and
// the errors of those that were not: [*UnclaimedError], [*UndoError] and files that cannot be read. When ctx ends it stops
// between two entries.
//
// It may run at any time, in many processes at once: each file is recovered by whoever locks it. Who can undo other things may have locked it
// just to look at it, so Recover waits a moment for files of processes that are gone.
func Recover(ctx context.Context, dir *os.File, owners map[string]Undoer) (undone int, err error) {
	boot, err := BootID()
	if err != nil {
		return 0, err
	}
	names, err := list(dir)
	if err != nil {
		return 0, err
	}
	var faults []error
	patience := recoverPatience
	for _, name := range names {
		if ctx.Err() != nil {
			faults = append(faults, ctx.Err())
			break
		}
		r := recovery{ctx: ctx, dir: dir, name: name, boot: boot, owners: owners, patience: &patience}
		if err := r.run(); err != nil {
			faults = append(faults, err)
		}
		undone += r.undone
	}
	return undone, errors.Join(faults...)
}

func list(dir *os.File) ([]string, error) {
	// A descriptor of its own, for the position in the directory belongs to the open file.
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir.Name(), Err: err}
	}
	f := os.NewFile(uintptr(fd), dir.Name())
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	return slices.DeleteFunc(all, func(n string) bool {
		return !strings.HasSuffix(n, suffix) && !strings.HasSuffix(n, suffix+".new")
	}), nil
}

type recovery struct {
	ctx    context.Context
	dir    *os.File
	name   string
	boot   string
	owners map[string]Undoer
	undone int

	patience *time.Duration // that is left
}

// recoverPatience is for how long one recovery waits for others in all.
const recoverPatience = time.Second

// awaited says that it is worth a moment's wait for the lock of a file: it is not its own process that has it.
func (r *recovery) awaited() bool {
	const wait = 2 * time.Millisecond
	pid, rest, _ := strings.Cut(strings.TrimSuffix(r.name, suffix), "-")
	began, _, _ := strings.Cut(rest, "-")
	start, err := strconv.ParseUint(began, 10, 64)
	if err != nil || *r.patience <= 0 || r.ctx.Err() != nil {
		return false
	}
	if at, err := startTimeOf(pid); err == nil && at == start {
		return false
	}
	time.Sleep(wait)
	*r.patience -= wait
	return true
}

func (r *recovery) run() error {
	f, err := r.lock()
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return r.fail(err)
	}
	if len(b) > maxFile {
		return r.fail(fmt.Errorf("%w: larger than %d bytes", ErrCorrupt, maxFile))
	}
	boot, open, corrupt := parse(b)
	if corrupt == nil && boot != r.boot || strings.HasSuffix(r.name, ".new") {
		// Void after a reboot; or left by a rewrite that did not come to its rename, so the other file holds.
		return r.remove()
	}
	if err := cutTornLine(f, b); err != nil {
		return r.fail(err)
	}
	left, err := r.undo(f, open)
	if corrupt != nil {
		return errors.Join(err, r.fail(corrupt))
	}
	if left == 0 && err == nil {
		return r.remove()
	}
	return err
}

// lock opens the file and takes its lock; nil without error means that it is not for us: its process lives, or it is
// gone meanwhile.
func (r *recovery) lock() (*os.File, error) {
	fd, err := unix.Openat(int(r.dir.Fd()), r.name, unix.O_RDWR|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, r.fail(err)
	}
	f := os.NewFile(uintptr(fd), r.name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, r.fail(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() {
		f.Close()
		return nil, r.fail(fmt.Errorf("%w: not a regular file of this user", ErrCorrupt))
	}
	err = lockLinked(r.dir, r.name, f)
	for err == errLocked && r.awaited() {
		err = lockLinked(r.dir, r.name, f)
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, errTaken) {
		return nil, nil
	}
	return nil, r.fail(err)
}

// cutTornLine removes a last line without newline, so that what is appended begins a line.
func cutTornLine(f *os.File, b []byte) error {
	if end := bytes.LastIndexByte(b, '\n') + 1; end < len(b) {
		return unix.Ftruncate(int(f.Fd()), int64(end))
	}
	return nil
}

// undo undoes entries, newest first, and strikes them out. It returns how many are left.
func (r *recovery) undo(f *os.File, open []Entry) (left int, err error) {
	var faults []error
	for i, e := range slices.Backward(open) {
		if r.ctx.Err() != nil {
			return left + i + 1, errors.Join(append(faults, r.ctx.Err())...)
		}
		kept, err := r.undoOne(f, e)
		if kept {
			left++
		}
		if err != nil {
			faults = append(faults, err)
		}
	}
	return left, errors.Join(faults...)
}

func (r *recovery) undoOne(f *os.File, e Entry) (kept bool, err error) {
	file := r.dir.Name() + "/" + r.name
	owner := r.owners[e.Owner]
	if owner == nil {
		return true, &UnclaimedError{file, e}
	}
	err = owner.Undo(r.ctx, e.Version, e.Data)
	if errors.Is(err, ErrKeep) {
		return true, nil
	}
	if err != nil {
		return true, &UndoError{file, e, err}
	}
	r.undone++
	if _, err := unix.Write(int(f.Fd()), appendDone(nil, e.ID)); err != nil {
		return false, r.fail(err)
	}
	return false, nil
}

func (r *recovery) remove() error {
	if err := unix.Unlinkat(int(r.dir.Fd()), r.name, 0); err != nil && err != unix.ENOENT {
		return r.fail(err)
	}
	return nil
}

func (r *recovery) fail(err error) error {
	return fmt.Errorf("journal: recover %s/%s: %w", r.dir.Name(), r.name, err)
}
