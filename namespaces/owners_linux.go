package namespaces

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// Owners gives files to the ids of a user namespace, for a program that may not do so itself: an ordinary user's files to its subordinate ids,
// and back, and opens what their modes close to everybody but root. It is a process that is root in a user namespace of its own with given maps and does nothing but what it is told with
// a file at hand; it resolves no path but those of Open. Any number of goroutines may use it. Make it with [NewOwners].
type Owners struct {
	ctx  context.Context
	maps IDMaps

	mu     sync.Mutex
	child  *stage.Child
	closed bool
}

// NewOwners makes the process, with maps such as [AutoIDMaps] returns. It ends with Close and with the calling program; no call begins after the end of ctx. Errors are
// those of [WriteMaps], and of clone(2) and unshare(2) where user namespaces are forbidden.
func NewOwners(ctx context.Context, maps IDMaps) (*Owners, error) {
	o := &Owners{ctx: ctx, maps: maps}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.engage(); err != nil {
		return nil, err
	}
	return o, nil
}

// Has reports whether both ids, as they are inside, have one outside.
func (o *Owners) Has(uid, gid uint32) bool {
	_, uok := ToHost(o.maps.UID, uid)
	_, gok := ToHost(o.maps.GID, gid)
	return uok && gok
}

// Chown gives what fd is, which may have been opened with O_PATH, to ids as they are inside. Owner and group that it had must be mapped too
// (fchownat(2), AT_EMPTY_PATH). Set-user-ID bits and file capabilities of files are gone afterwards.
func (o *Owners) Chown(fd int, uid, gid uint32) error {
	return o.do(fd, ownersChown, uint64(uid), uint64(gid), "", nil)
}

// Chmod is fchmod(2).
func (o *Owners) Chmod(fd int, mode uint32) error {
	return o.do(fd, ownersChmod, uint64(mode), 0, "", nil)
}

// Setxattr is fsetxattr(2): ids in access lists are those inside, and file capabilities hold in user namespaces whose root has the same id
// outside. EPERM stands for EINVAL and ENOTSUP too.
func (o *Owners) Setxattr(fd int, name string, value []byte) error {
	if len(name) >= ownersName || len(value) > ownersValue {
		return unix.E2BIG
	}
	return o.do(fd, ownersSetxattr, uint64(len(value)), 0, name, value)
}

// Open is openat2(2): it opens what path leads to from dir, a directory that may have been opened with O_PATH, with flags of open(2) and resolve, RESOLVE_BENEATH and others. It makes no
// files: O_CREAT and O_TMPFILE are EINVAL. Give O_NONBLOCK where it may be a pipe: a call that waits is waited for, also by Close. What the kernel asks of root counts where owner and group of a file are mapped: modes that keep its owner out do not. The descriptor is the caller's, and close-on-exec.
func (o *Owners) Open(dir int, path string, flags int, resolve uint64) (int, error) {
	switch {
	case len(path) >= unix.PathMax:
		return -1, unix.ENAMETOOLONG
	case flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0:
		return -1, unix.EINVAL
	}
	// struct open_how has its third field where other calls have a name.
	rest := binary.NativeEndian.AppendUint64(nil, resolve)
	m, err := o.ask(dir, ownersOpen, uint64(flags|unix.O_CLOEXEC), 0, string(rest), append([]byte(path), 0))
	if err == nil && m.FD < 0 {
		err = unix.EMFILE // the kernel drops a descriptor that finds no number here (recvmsg(2))
	}
	return m.FD, err
}

// Close ends the process. Closing twice is harmless.
func (o *Owners) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.dismiss()
	return nil
}

// The calls, by number.
const (
	ownersChown = iota
	ownersChmod
	ownersSetxattr
	ownersOpen
)

// What is sent: the number of the call, two arguments, a name and a value (XATTR_NAME_MAX and XATTR_SIZE_MAX of limits.h). The value is sent as
// far as it goes.
const (
	ownersName  = 256
	ownersValue = 64 << 10
	ownersHead  = 24
	ownersSize  = ownersHead + ownersName + ownersValue
)

// Sync points of the process.
const (
	tagOwnersDone    = 3
	tagOwnersRefused = 4
)

func (o *Owners) do(fd int, call, a, b uint64, name string, value []byte) error {
	_, err := o.ask(fd, call, a, b, name, value)
	return err
}

// ask has a call made, and returns what the process tells of it.
func (o *Owners) ask(fd int, call, a, b uint64, name string, value []byte) (stage.Message, error) {
	none := stage.Message{FD: -1}
	msg := make([]byte, ownersHead+ownersName, ownersHead+ownersName+len(value))
	for i, v := range []uint64{call, a, b} {
		binary.NativeEndian.PutUint64(msg[8*i:], v)
	}
	copy(msg[ownersHead:], name)
	msg = append(msg, value...)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.engage(); err != nil {
		return none, err
	}
	if err := o.child.Conn.Ask(msg, fd); err != nil {
		o.dismiss()
		return none, err
	}
	m, err := o.child.Conn.Recv()
	switch {
	case err == nil && m.Tag == tagOwnersDone:
		return m, nil
	case err == nil && m.Tag == tagOwnersRefused && m.Value != 0:
		return m, unix.Errno(m.Value)
	case err == nil && m.Tag == tagOwnersRefused:
		return m, unix.EPERM
	}
	o.dismiss()
	return none, o.why(err)
}

// why tells an errno of the call from the end of the process.
func (o *Owners) why(err error) error {
	var se *program.StepError
	if errors.As(err, &se) && se.Syscall != "recvmsg" {
		return se.Errno
	}
	if cause := context.Cause(o.ctx); cause != nil {
		return cause
	}
	if err == nil || err == io.EOF {
		return &Error{Op: "change owners by", Object: "a process in a user namespace", Err: ErrProcessGone}
	}
	return err
}

// engage makes the process, if there is none: a call that failed ends it.
func (o *Owners) engage() error {
	if o.closed {
		return ErrOwnersClosed
	}
	if err := context.Cause(o.ctx); err != nil {
		return err
	}
	if o.child != nil {
		return nil
	}
	p, err := ownersProgram()
	if err != nil {
		return err
	}
	child, err := stage.Start(stage.Config{Program: p, Cgroup: -1})
	if err != nil {
		return err
	}
	o.child = child
	defer hangUpAfter(o.ctx, child.Conn)()
	if _, err = child.Conn.Recv(); err == nil {
		err = writeMapsOf(o.ctx, child.Pid, child.Pidfd, o.maps)
	}
	if err == nil {
		err = child.Conn.Release()
	}
	if err == nil {
		return nil
	}
	o.dismiss()
	if err == io.EOF {
		return o.why(err)
	}
	return explainStart(err)
}

// dismiss ends the process.
func (o *Owners) dismiss() {
	if o.child == nil {
		return
	}
	o.child.Kill()
	o.child.Conn.Close()
	unix.Close(o.child.Pidfd)
	o.child = nil
}

// ownersProgram is the process. It ends when the calling program hangs up or ends.
func ownersProgram() (*program.Program, error) {
	b := program.NewBuilder(false)
	b.Step("start a new", "session")
	b.Setsid()
	unshare(b, User)
	b.Step("wait for", "id maps")
	stage.EmitSync(b, tagMaps)
	b.Step("become", "root of the user namespace")
	b.Setgroups(nil).Ignore(unix.EPERM)
	b.Setresgid(0)
	b.Setresuid(0)
	b.Step("change", "owners")
	serving := stage.EmitServing(b, ownersSize, "<file>")
	area, fd := serving.Area, serving.File
	refused, done, over := b.NewLabel(), b.NewLabel(), b.NewLabel()
	tell := func(tag uint64, errno unix.Errno) program.OpRef {
		msg := binary.NativeEndian.AppendUint64(make([]byte, 0, stage.MessageSize), tag)
		msg = binary.NativeEndian.AppendUint64(msg, uint64(errno))
		return b.Call(unix.SYS_WRITE, "write", b.Input(stage.HostInput), program.Bytes(msg[:stage.MessageSize], "answer"), program.Int(stage.MessageSize))
	}
	name, value := (area + ownersHead/8).AddrShown("name"), (area + (ownersHead+ownersName)/8).AddrShown("value")
	first, second, none := (area + 1).Value(), (area + 2).Value(), program.Int(0)
	empty := program.Bytes([]byte{0}, `""`)
	calls := []func() program.OpRef{
		ownersChown: func() program.OpRef {
			return b.Call(unix.SYS_FCHOWNAT, "fchownat", fd, empty, first, second, program.Named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"))
		},
		ownersChmod:    func() program.OpRef { return b.Call(unix.SYS_FCHMOD, "fchmod", fd, first) },
		ownersSetxattr: func() program.OpRef { return b.Call(unix.SYS_FSETXATTR, "fsetxattr", fd, name, value, first, none) },
	}
	labels := serving.Dispatch(b, len(calls)+1)
	for i, call := range calls {
		b.Mark(labels[i])
		call().IgnoreTo(refused, unix.EPERM, unix.EINVAL, unix.ENOTSUP).Then(done)
	}
	const missing = unix.ENOENT // is ordinary
	gone := b.NewLabel()
	b.Mark(labels[ownersOpen])
	opened := b.Call(unix.SYS_OPENAT2, "openat2", fd, value, (area+1).AddrShown("how"), program.Int(unix.SizeofOpenHow)).IgnoreTo(gone, missing)
	stage.EmitPass(b, tagOwnersDone, opened)
	b.Close(opened.Result()).Then(over)
	b.Mark(gone)
	tell(tagOwnersRefused, missing).Then(over)
	b.Mark(refused)
	tell(tagOwnersRefused, 0).Then(over)
	b.Mark(done)
	tell(tagOwnersDone, 0).Then(over)
	b.Mark(over)
	serving.Again(b)
	return b.Build()
}
