package cgroups

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
)

// A v2 group can only have a controller that its parent hands on to all its children, and the parent often belongs to
// others: the root, the group of a login session. What is enabled there is taken back, by these rules:
//
//   - Only what this package enabled, as the loan on the directory says: never what was enabled before.
//   - Only when the last group that was made there since is gone, whoever made it: it may have limits.
//   - Never what a child hands on to its own children, which the kernel refuses (EBUSY).
//
// So the last one out does it, whichever program it belongs to. What keeps the others away meanwhile is a lock of the user's.
// After SIGKILL it is done by who finds the entry in the journal.

// idleTime is how long frequent controllers stay enabled when no group needs them any more.
const idleTime = time.Second

// A debt is what this program owes for one directory.
type debt struct {
	strike func()      // the entry in the journal; nil if there is none
	timer  *time.Timer // to look whether the frequent ones can be taken back; nil when not needed yet
}

// handDown has the parent hand on what a new child needs. The child is to be made before unlock is called.
func (m *Manager) handDown(p *place) (unlock func(), err error) {
	need := p.bits &^ core
	unlock = func() {}
	if need == 0 {
		return unlock, nil
	}
	if p.own {
		return unlock, m.enable(p.parent.fd, p.parent.path, need)
	}
	dir := p.parent.path
	missing, err := lacking(p.parent.fd, dir, need)
	if err != nil || missing == 0 && readLoan(dir).controllers&need == 0 {
		return unlock, err // nobody takes them away
	}
	how := unix.LOCK_SH
	for {
		if missing != 0 {
			how = unix.LOCK_EX
		}
		unlock = lockLoans(how, lendPatience)
		if missing, err = lacking(p.parent.fd, dir, need); err != nil || missing == 0 || how == unix.LOCK_EX {
			break
		}
		unlock()
	}
	if err == nil && (missing != 0 || readLoan(dir).controllers&need != 0) {
		m.owe(dir)
	}
	if err == nil && missing != 0 {
		err = m.lend(p.parent.fd, dir, missing)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// lacking returns which controllers a group does not hand on.
func lacking(fd int, dir string, need Controllers) (Controllers, error) {
	b := newBuffer()
	defer b.free()
	text, err := b.readAt(fd, "cgroup.subtree_control")
	if err != nil {
		return 0, &Error{Op: "read", Path: dir + "/cgroup.subtree_control", Err: err}
	}
	return need &^ controllersOf(string(text)), nil
}

// lend enables what is missing, and notes it first. The lock is held.
func (m *Manager) lend(fd int, dir string, missing Controllers) error {
	l := readLoan(dir)
	if l.controllers == 0 {
		l.newest = newestChild(dir)
	}
	l.controllers |= missing
	_ = writeLoan(dir, l) // a kernel that keeps no attributes leaves the controllers enabled
	err := m.enable(fd, dir, missing)
	if err != nil {
		_, _ = takeBack(dir, missing)
	}
	return err
}

// settle is called when a group below dir is gone, or could not be made.
func (m *Manager) settle(dir string) {
	l := readLoan(dir)
	if l.controllers == 0 {
		return
	}
	if now := l.controllers &^ frequent; now != 0 {
		m.repay(dir, now)
	}
	if l.controllers&frequent == 0 {
		return
	}
	m.owe(dir)
	m.debtMu.Lock()
	defer m.debtMu.Unlock()
	d := m.debts[dir]
	switch {
	case d == nil:
	case d.timer == nil:
		d.timer = time.AfterFunc(idleTime, func() { m.repay(dir, all) })
	default:
		d.timer.Reset(idleTime)
	}
}

// repay takes back what it can, and forgets the debt when nothing is left of it.
func (m *Manager) repay(dir string, which Controllers) {
	unlock := lockLoans(unix.LOCK_EX, lendPatience)
	left, err := takeBack(dir, which)
	unlock()
	if err != nil || left != 0 {
		return
	}
	m.debtMu.Lock()
	defer m.debtMu.Unlock()
	if d := m.debts[dir]; d != nil {
		d.drop()
		delete(m.debts, dir)
	}
}

func (d *debt) drop() {
	if d.timer != nil {
		d.timer.Stop()
	}
	if d.strike != nil {
		d.strike()
	}
}

// stopTimers leaves what could not be taken back to who removes the last group, or recovers.
func (m *Manager) stopTimers() {
	m.debtMu.Lock()
	defer m.debtMu.Unlock()
	for _, d := range m.debts {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
}

// owe records, once for each directory, that there is something to take back. Where nothing can be recorded, the loan on the
// directory still tells the next program that makes groups there.
func (m *Manager) owe(dir string) {
	m.debtMu.Lock()
	defer m.debtMu.Unlock()
	if m.debts[dir] != nil {
		return
	}
	d := &debt{}
	if j, err := journal.Default(); err == nil {
		data, _ := json.Marshal(lenderRecord{dir})
		if id, err := j.Add(ControllersOwner, 1, data); err == nil {
			d.strike = func() { _ = j.Done(id) }
		}
	}
	if m.debts == nil {
		m.debts = map[string]*debt{}
	}
	m.debts[dir] = d
}

// TakeBack disables at once what the Manager has enabled in groups that are not its own and that no group needs any more. It
// happens without it too: for hugetlb, misc and rdma when the last group goes, for cpu, cpuset, io, memory and pids a second later, since
// switching them for every group would cost more than the group. A program that ends sooner leaves it to [UndoControllers].
//
// A controller is taken back if this package enabled it and no group that was made there since is left, by whatever program it was made. Where
// it must stay, there is no error: who removes the last group takes it back. Kernels that keep no extended attributes
// of control groups (before Linux 5.7; for root 3.7) leave what was enabled.
func (m *Manager) TakeBack() {
	m.debtMu.Lock()
	var dirs []string
	for dir := range m.debts {
		dirs = append(dirs, dir)
	}
	m.debtMu.Unlock()
	for _, dir := range dirs {
		m.repay(dir, all)
	}
}

// UndoControllers takes back what a dead program has enabled in a group that was not its own, from what it recorded under
// [ControllersOwner], by the rules of [Manager.TakeBack].
func UndoControllers(_ context.Context, version int, data []byte) error {
	dir, err := parseLender(version, data)
	if err != nil {
		return err
	}
	defer lockLoans(unix.LOCK_EX, lendPatience)()
	_, err = takeBack(dir, all)
	return err
}

// InheritControllers has the default Manager take over what a dead program recorded under [ControllersOwner]: it takes the
// controllers back when its own last group is gone. For programs that are about to make groups themselves.
func InheritControllers(ctx context.Context, version int, data []byte) error {
	dir, err := parseLender(version, data)
	if err != nil {
		return err
	}
	m, err := Default()
	if err != nil {
		return err
	}
	m.settle(dir)
	return nil
}

type lenderRecord struct {
	Dir string `json:"dir"`
}

func parseLender(version int, data []byte) (string, error) {
	var r lenderRecord
	if version != 1 {
		return "", fmt.Errorf("record of version %d", version)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return "", err
	}
	if !path.IsAbs(r.Dir) || path.Clean(r.Dir) != r.Dir {
		return "", fmt.Errorf("record of a directory %q", r.Dir)
	}
	return r.Dir, nil
}

// takeBack disables those of the controllers that were lent, unless a group counts on them, and returns what is still lent. The
// lock is held.
func takeBack(dir string, which Controllers) (left Controllers, err error) {
	l := readLoan(dir)
	if l.controllers&which == 0 || newestChild(dir) > l.newest {
		return l.controllers, nil
	}
	fd, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return l.controllers, err
	}
	defer unix.Close(fd)
	if err := onCgroupFS(fd, 2); err != nil {
		return l.controllers, err
	}
	(l.controllers & which).each(func(c Controllers) {
		werr := writeAt(fd, "cgroup.subtree_control", "-"+c.String())
		switch {
		case werr == nil || werr == unix.ENOENT: // it is not handed down to this group any more
			l.controllers &^= c
		case werr != unix.EBUSY: // a child hands it on
			err = errors.Join(err, &Error{Op: "disable " + c.String() + " in", Path: dir + "/cgroup.subtree_control", Err: werr})
		}
	})
	return l.controllers, errors.Join(err, writeLoan(dir, l))
}

// newestChild returns the greatest inode of the groups below a directory; 0 if there are none.
func newestChild(dir string) (newest uint64) {
	fd, err := openAt(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Nlink == 2 {
		return 0
	}
	b := newBuffer()
	defer b.free()
	for {
		n, err := unix.ReadDirent(fd, b.b)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return newest
		}
		eachDir(b.b[:n], func(ino uint64, name string) {
			if name != "." && name != ".." {
				newest = max(newest, ino)
			}
		})
	}
}

// loanAttrs are the names of the attribute: one that who owns the directory may set (Linux 5.7), and one for root.
var loanAttrs = [2]string{"user." + loanAttr, "trusted." + loanAttr}

func readLoan(dir string) loan {
	var b [256]byte
	for _, name := range loanAttrs {
		if n, err := unix.Lgetxattr(dir, name, b[:]); err == nil {
			return parseLoan(string(b[:n]))
		} else if err != unix.EOPNOTSUPP {
			break
		}
	}
	return loan{}
}

// writeLoan notes what is lent; nothing removes the note.
func writeLoan(dir string, l loan) (err error) {
	for _, name := range loanAttrs {
		if l.controllers == 0 {
			err = unix.Lremovexattr(dir, name)
		} else {
			err = unix.Lsetxattr(dir, name, []byte(l.String()), 0)
		}
		if err != unix.EOPNOTSUPP {
			break
		}
	}
	if err != nil && err != unix.ENODATA {
		return &os.PathError{Op: "setxattr", Path: dir, Err: err}
	}
	return nil
}

// lendPatience bounds the wait for the lock: whoever holds it makes or removes one group, unless it was stopped meanwhile. Many programs on a busy
// machine wait for each other, and without the lock one may take back what another has just found.
const lendPatience = 20 * time.Second

// lockLoans locks out the other programs of this user. Not on the group's directory, which everybody may open and lock. Where there is
// no lock to be had it goes on without.
func lockLoans(how int, patience time.Duration) (unlock func()) {
	f, err := journal.Base("cgroups", true)
	if err != nil {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = until(ctx, func() (bool, error) {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case unix.EWOULDBLOCK, unix.EINTR:
			return false, nil
		default:
			return true, nil
		}
	})
	return func() { _ = f.Close() }
}

// eachDir calls f for the directories in what getdents64(2) returned.
func eachDir(b []byte, f func(ino uint64, name string)) {
	const head = 19 // ino, off, reclen, type
	for len(b) > head {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= head || size > len(b) {
			return
		}
		name, _, _ := bytes.Cut(b[head:size], []byte{0})
		if b[18] == unix.DT_DIR {
			f(binary.NativeEndian.Uint64(b), string(name))
		}
		b = b[size:]
	}
}
