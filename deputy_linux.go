package caisson

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/rootfs"
)

// A deputy is a visit that stays and does system calls on files for the host program, as root of the container's user namespace and
// with the container's mounts in sight. So a file that is made inside has an owner that exists there, what belongs to other ids of the
// container can be read, and nothing is done with rights that the container's root does not have.
//
//	host ── number of the call, arguments, a directory ──▶ deputy ── result: a descriptor, or nothing ──▶ host
//
// Every path is resolved by openat2(2), or is a single name. A call that fails ends the deputy, which tells the errno; the
// next call has another made. Of the errors that are ordinary it tells and goes on.
type deputy struct {
	send    func() (*stage.Child, error)
	ctx     context.Context
	release func()

	mu    sync.Mutex
	child *stage.Child // nil: there is none
	leave func()
}

var _ linux.Actor = (*deputy)(nil)

// deputize returns a deputy, until close is called. The container's end waits for that, as it does for visits.
func (r *running) deputize(ctx context.Context) (*deputy, error) {
	ctx, leave, ok := r.execs.during(ctx, errGone)
	if !ok {
		return nil, errGone
	}
	send := func() (*stage.Child, error) { return r.send(visiting{kinds: unix.CLONE_NEWNS, inside: emitDeputy}) }
	return &deputy{send: send, ctx: ctx, release: leave}, nil
}

func (d *deputy) close() {
	d.dismiss()
	d.release()
}

// The calls, by number.
const (
	deputyOpen = iota
	deputyMkdir
	deputySymlink
	deputyRename
	deputyUnlink
	deputyChmod
	deputySetTime
	deputySetTimeSelf
)

// What is sent: the number of the call, arguments, and two paths at fixed places.
const (
	deputyArgs  = 5
	deputyPath  = 8 * (1 + deputyArgs)
	deputyRoom  = unix.PathMax
	deputyOther = deputyPath + deputyRoom
	deputySize  = deputyOther + deputyRoom
)

// question is one call.
type question struct {
	call        uint64
	args        [deputyArgs]uint64
	path, other string
}

func (q *question) bytes() ([]byte, error) {
	if len(q.path) >= deputyRoom || len(q.other) >= deputyRoom {
		return nil, unix.ENAMETOOLONG
	}
	b := make([]byte, deputySize)
	binary.NativeEndian.PutUint64(b, q.call)
	for i, a := range q.args {
		binary.NativeEndian.PutUint64(b[8+8*i:], a)
	}
	copy(b[deputyPath:], q.path)
	copy(b[deputyOther:], q.other)
	if q.other == "" {
		b = b[:deputyPath+len(q.path)+1]
	}
	return b, nil
}

// deputyStep is the step of the calls themselves: their failure is told as that of the call alone.
const deputyStep = "serve"

// emitDeputy emits the loop of a deputy.
func emitDeputy(v *visit) {
	v.Step(deputyStep, "the host program")
	serving := stage.EmitServing(v.Builder, deputySize, "<directory>")
	fine, done := v.NewLabel(), v.NewLabel()
	ordinary := []unix.Errno{unix.ENOENT, unix.EEXIST}
	tell := []program.Label{v.NewLabel(), v.NewLabel()}

	calls := deputyCalls(serving.Area, serving.File)
	labels := serving.Dispatch(v.Builder, len(calls))
	for i, c := range calls {
		v.Mark(labels[i])
		op := v.Call(c.nr, c.name, c.args...)
		for j, errno := range ordinary {
			if c.ordinary == errno {
				op.IgnoreTo(tell[j], errno)
			}
		}
		if i != deputyOpen {
			op.Then(fine)
			continue
		}
		v.pass(op)
		v.Close(op.Result()).Then(done)
	}
	v.Mark(fine)
	v.tell(0).Then(done)
	for j, errno := range ordinary {
		v.Mark(tell[j])
		v.tell(errno).Then(done)
	}
	v.Mark(done)
	serving.Again(v.Builder)
}

// tell tells how a call ended.
func (v *visit) tell(errno unix.Errno) program.OpRef {
	msg := binary.NativeEndian.AppendUint64(nil, syncVisit)
	msg = binary.NativeEndian.AppendUint64(msg, uint64(errno))
	return v.Call(unix.SYS_WRITE, "write", v.Input(stage.HostInput), program.Bytes(msg, strconv.Quote(unix.ErrnoName(errno))), program.Int(stage.MessageSize))
}

// deputyCall is a call of a deputy, and the error that does not end it.
type deputyCall struct {
	nr       uintptr
	name     string
	ordinary unix.Errno
	args     []program.Arg
}

func deputyCalls(area program.Word, fd program.Arg) []deputyCall {
	first := area + 1
	path, other := (area + deputyPath/8).AddrShown("path"), (area + deputyOther/8).AddrShown("other")
	times, none := first.AddrShown("times"), program.Int(0)
	args := func(a ...program.Arg) []program.Arg { return a }
	return []deputyCall{
		deputyOpen:        {unix.SYS_OPENAT2, "openat2", unix.ENOENT, args(fd, path, first.AddrShown("how"), program.Int(24))},
		deputyMkdir:       {unix.SYS_MKDIRAT, "mkdirat", unix.EEXIST, args(fd, path, first.Value())},
		deputySymlink:     {unix.SYS_SYMLINKAT, "symlinkat", unix.EEXIST, args(other, fd, path)},
		deputyRename:      {unix.SYS_RENAMEAT2, "renameat2", unix.ENOENT, args(fd, path, fd, other, none)},
		deputyUnlink:      {unix.SYS_UNLINKAT, "unlinkat", unix.ENOENT, args(fd, path, none)},
		deputyChmod:       {unix.SYS_FCHMOD, "fchmod", 0, args(fd, first.Value())},
		deputySetTime:     {unix.SYS_UTIMENSAT, "utimensat", unix.ENOENT, args(fd, path, times, program.Named(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"))},
		deputySetTimeSelf: {unix.SYS_UTIMENSAT, "utimensat", 0, args(fd, program.Null(), times, none)},
	}
}

// do has a call done, on a directory or file of this program's. It returns a descriptor for deputyOpen.
func (d *deputy) do(fd int, q question) (int, error) {
	b, err := q.bytes()
	if err != nil {
		return -1, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.engage(); err != nil {
		return -1, err
	}
	if err := d.child.Conn.Ask(b, fd); err != nil {
		return -1, err
	}
	msg, err := d.child.Conn.Recv()
	if err == nil && msg.Value == 0 {
		return msg.FD, nil
	}
	if err == nil {
		return -1, unix.Errno(msg.Value)
	}
	d.dismiss()
	var se *program.StepError
	switch cause := context.Cause(d.ctx); {
	case errors.As(err, &se) && se.Step == deputyStep:
		return -1, se.Errno
	case se != nil:
		return -1, visitError(err)
	case cause != nil:
		return -1, cause
	case err == io.EOF:
		return -1, ErrHelperKilled
	}
	return -1, err
}

// engage makes the process, if there is none.
func (d *deputy) engage() error {
	if d.child != nil {
		return nil
	}
	if err := context.Cause(d.ctx); err != nil {
		return err
	}
	child, err := d.send()
	if err != nil {
		return err
	}
	var t target
	t.set(child.Pidfd)
	stop := context.AfterFunc(d.ctx, t.kill)
	forget, err := stage.Keep(child.Pidfd)
	d.child = child
	d.leave = func() {
		stop()
		t.set(-1)
		child.Kill()
		if forget != nil {
			forget()
		}
		child.Conn.Close()
		unix.Close(child.Pidfd)
	}
	if err == nil {
		err = child.Conn.Release()
	}
	if err != nil {
		d.dismiss()
	}
	return err
}

// dismiss ends the process.
func (d *deputy) dismiss() {
	if d.child != nil {
		d.leave()
		d.child = nil
	}
}

func (d *deputy) Open(dir int, path string, flags int, mode uint32, resolve uint64) (int, error) {
	return d.do(dir, question{call: deputyOpen, path: path, args: [deputyArgs]uint64{uint64(flags) | unix.O_CLOEXEC, uint64(mode), resolve}})
}

func (d *deputy) Mkdir(dir int, name string, mode uint32) error {
	_, err := d.do(dir, question{call: deputyMkdir, path: name, args: [deputyArgs]uint64{uint64(mode)}})
	return err
}

func (d *deputy) Symlink(text string, dir int, name string) error {
	_, err := d.do(dir, question{call: deputySymlink, path: name, other: text})
	return err
}

func (d *deputy) Rename(dir int, from, to string) error {
	_, err := d.do(dir, question{call: deputyRename, path: from, other: to})
	return err
}

func (d *deputy) Unlink(dir int, name string) error {
	_, err := d.do(dir, question{call: deputyUnlink, path: name})
	return err
}

func (d *deputy) Chmod(fd int, mode uint32) error {
	_, err := d.do(fd, question{call: deputyChmod, args: [deputyArgs]uint64{uint64(mode)}})
	return err
}

func (d *deputy) SetTime(dir int, name string, sec, nsec int64) error {
	q := question{call: deputySetTime, path: name, args: [deputyArgs]uint64{0, unix.UTIME_OMIT, uint64(sec), uint64(nsec)}}
	if name == "" {
		q.call = deputySetTimeSelf
	}
	_, err := d.do(dir, q)
	return err
}

// actingIn calls f with the root directory, in which a deputy acts. Where paths cannot be resolved by openat2(2) it is this program.
func (r *running) actingIn(ctx context.Context, root *rootfs.Root, f func(context.Context, *rootfs.Root) error) error {
	if !rootfs.Probe().Openat2 {
		return f(ctx, root)
	}
	d, err := r.deputize(ctx)
	if err != nil {
		return err
	}
	defer d.close()
	return r.gone(f(d.ctx, rootfs.ActBy(root, d)))
}
