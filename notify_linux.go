package caisson

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/seccomp"
)

// How a listener comes to the host program: seccomp(2) gives its descriptor to the stage, which is under the filter from then
// on and must not be held up before it has passed the descriptor. So the filter begins with a head that lets
// sendmsg(2) and seccomp(2) through if the three registers that these calls do not use hold a secret, 192 random bits made
// for this start. The command cannot know them.

// planNotify fits the filters to the wish.
func (r *running) planNotify(arch seccomp.Arch) error {
	n := &r.spec.process.notify
	if n.handler == nil && n.recorder == nil && !n.elsewhere() {
		if f := r.m.filter; f != nil && f.Notify {
			return withRemedy("WithSeccompNotify", "%w: the seccomp profile has SCMP_ACT_NOTIFY, and nobody listens", ErrInvalid)
		}
		return nil
	}
	if f := r.m.filter; n.elsewhere() && (f == nil || !f.Notify) {
		return nil
	}
	if f := r.m.filter; f != nil && f.Notify && n.recorder != nil {
		return fmt.Errorf("%w: a profile with SCMP_ACT_NOTIFY cannot be recorded: a process has one listener", ErrInvalid)
	}
	send, ok1 := arch.Number("sendmsg")
	attach, ok2 := arch.Number("seccomp")
	var raw [24]byte
	if _, err := unix.Getrandom(raw[:], 0); err != nil || !ok1 || !ok2 {
		return fmt.Errorf("%w: seccomp notification: %w", ErrUnsupported, err)
	}
	for i := range r.m.secret {
		r.m.secret[i] = binary.NativeEndian.Uint64(raw[8*i:])
	}
	f := r.m.filter
	if n.recorder != nil {
		f = seccomp.Ask()
	}
	f = f.Passing(arch, r.m.secret, send, attach)
	if !n.elsewhere() && waitKillable() {
		f.Flags |= seccomp.FlagWaitKillableRecv
	}
	if n.recorder != nil {
		r.m.asking = f
		r.applied("seccomp recorder", "every system call is noted")
		return nil
	}
	r.m.filter = f
	if n.elsewhere() {
		r.planListener()
		return nil
	}
	r.applied("seccomp notification", "answered by the host program")
	return nil
}

// notifyProfile adds the named calls to a profile; nil is the default one.
func (p *processSpec) notifyProfile(profile *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	q := *profile
	q.Syscalls = append([]specs.LinuxSyscall{{Names: p.notify.names, Action: specs.ActNotify}}, profile.Syscalls...)
	return &q
}

// everything is the profile of a process without one, for calls to be added that are asked about.
func everything(arch seccomp.Arch) (*specs.LinuxSeccomp, error) {
	p, err := seccomp.Default(arch, 0)
	if err != nil {
		return nil, err
	}
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: p.Architectures}, nil
}

// waitKillable asks whether the kernel knows the flag (5.19): it looks at flags before the filter's address. With it a caller
// whose call has been received is not disturbed by signals such as those by which Go's runtime interrupts threads.
var waitKillable = sync.OnceValue(func() bool {
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, 1, seccomp.FlagNewListener|seccomp.FlagWaitKillableRecv, 0)
	return e == unix.EFAULT
})

// sendListener passes the descriptor that an attachment returned, past the filter. It belongs to the attachment's step: to
// report a new one to a tracer would be held up.
func (c *compiler) sendListener(fd program.OpRef) {
	control := c.Words(20, uint64(unix.SOL_SOCKET)|uint64(unix.SCM_RIGHTS)<<32, 0)
	c.Copy(fd, control+2)
	c.sendFD(syncListener, control, c.secret()...)
}

// secret are the arguments that pass the filter.
func (c *compiler) secret() (args []program.Arg) {
	for _, s := range c.m.secret {
		args = append(args, program.Named(s, "<secret>"))
	}
	return args
}

// takeListener begins to answer.
func (r *running) takeListener(fd int) error {
	if fd < 0 {
		return errors.New("no descriptor came with the filter's listener")
	}
	if r.spec.process.notify.elsewhere() {
		return r.handListener(os.NewFile(uintptr(fd), "seccomp listener"))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	l := newSeccompListener(os.NewFile(uintptr(fd), "seccomp listener"), &r.spec.process.notify)
	r.listener.Store(l)
	r.undo.add(l.close)
	return nil
}

// receive takes what the stage says after it was released, until it has executed the command.
func (r *running) receive(ctx context.Context) error {
	for {
		msg, err := r.child.Conn.Recv()
		if err != nil {
			return err
		}
		if msg.Tag == syncListener {
			err = r.takeListener(msg.FD)
		} else if msg.Tag == syncHook {
			err = r.runInStage(ctx, msg.Value, true)
		} else if msg.Tag == syncTTY {
			err = r.takeTTY(msg.FD)
		} else if msg.FD >= 0 {
			unix.Close(msg.FD)
		}
		if err != nil {
			return err
		}
	}
}

// seccompListener answers the system calls of a process and its children.
type seccompListener struct {
	file   *os.File
	wish   *notifySpec
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
}

// maxHandlers bounds how many calls are answered at the same time; the kernel keeps the others waiting.
const maxHandlers = 64

func newSeccompListener(f *os.File, wish *notifySpec) *seccompListener {
	l := &seccompListener{file: f, wish: wish, slots: make(chan struct{}, maxHandlers)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	// SYNC_WAKE_UP (Linux 6.6): caller and listener take turns on one processor. Older kernels have not the call.
	_ = linux.Control(f, func(fd int) error {
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
		return nil
	})
	go l.serve()
	return l
}

// close ends it; calls that still wait fail with ENOSYS, which is the kernel's answer where nobody listens.
func (l *seccompListener) close() error {
	l.cancel()
	return ignoreClosed(l.file.Close())
}

// seccompNotif and seccompResp are struct seccomp_notif and seccomp_notif_resp (include/uapi/linux/seccomp.h).
type (
	seccompNotif struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	seccompResp struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}
	seccompAddFD struct {
		id                              uint64
		flags, src, number, numberFlags uint32
	}
)

// serve receives until no process uses the filter any more or the listener is closed.
func (l *seccompListener) serve() {
	defer l.cancel()
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		n, err := l.next()
		if err != nil {
			return
		}
		if l.wish.recorder != nil {
			c := l.notification(n)
			l.wish.recorder.note(c.Arch, c.Name, c.Number)
			_ = c.Continue()
			<-l.slots
			continue
		}
		go l.handle(l.notification(n))
	}
}

func (l *seccompListener) handle(n *SeccompNotification) {
	defer func() { <-l.slots }()
	l.wish.handler(l.ctx, n)
	_ = n.Fail(unix.EPERM) // answers only what has no answer yet
}

func (l *seccompListener) notification(n *seccompNotif) *SeccompNotification {
	out := &SeccompNotification{PID: int(n.pid), Number: int(n.nr), Args: n.args, call: &notified{l: l, id: n.id, pid: int(n.pid)}}
	arch := seccomp.Of(n.arch, uint32(n.nr))
	out.Arch, out.Name = specs.Arch(arch.String()), arch.Name(uint32(n.nr))
	return out
}

// next receives one notification, parked in the runtime's poller meanwhile. The ioctl itself would block a thread, so the
// listener is asked first.
func (l *seccompListener) next() (*seccompNotif, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := new(seccompNotif)
	var fault error
	err = raw.Read(func(fd uintptr) bool {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, err := unix.Ppoll(p, &unix.Timespec{}, nil)
			switch {
			case err == unix.EINTR:
				continue
			case err != nil:
				fault = err
				return true
			case p[0].Revents&unix.POLLIN == 0:
				if p[0].Revents != 0 {
					fault = io.EOF // the last process is gone
				}
				return p[0].Revents != 0
			}
			*n = seccompNotif{}
			_, _, e := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
			switch e {
			case 0:
				return true
			case unix.EINTR, unix.ENOENT: // the caller was killed meanwhile
				continue
			}
			fault = e
			return true
		}
	})
	return n, errors.Join(err, fault)
}

// notified is a call that waits.
type notified struct {
	l   *seccompListener
	id  uint64
	pid int

	mu       sync.Mutex
	answered bool
}

// ioctl makes a call about this notification. ENOENT: it does not wait any more.
func (n *notified) ioctl(name string, request uintptr, arg unsafe.Pointer) (int, error) {
	res := 0
	err := linux.Control(n.l.file, func(fd int) error {
		for {
			r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
			switch e {
			case unix.EINTR:
				continue
			case 0:
				res = int(r)
				return nil
			case unix.ENOENT:
				return fmt.Errorf("%w: the call does not wait any more: %w", os.ErrProcessDone, e)
			}
			return os.NewSyscallError("ioctl "+name, e)
		}
	})
	if errors.Is(err, os.ErrClosed) {
		err = fmt.Errorf("%w: %w", os.ErrProcessDone, err)
	}
	return res, err
}

// once runs f unless the call has been answered.
func (n *notified) once(f func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.answered {
		return fmt.Errorf("%w: the system call has been answered", ErrState)
	}
	err := f()
	n.answered = err == nil || errors.Is(err, os.ErrProcessDone)
	return err
}

func (n *notified) answer(value int64, errno syscall.Errno, goOn bool) error {
	r := seccompResp{id: n.id, val: value, error: -int32(errno)}
	if goOn {
		r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	return n.once(func() error {
		_, err := n.ioctl("SECCOMP_IOCTL_NOTIF_SEND", unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
		return err
	})
}

func (n *notified) addFD(f *os.File, number int, cloexec, answer bool) (fd int, err error) {
	if number < -1 || f == nil {
		return -1, fmt.Errorf("%w: number %d, or no file", ErrInvalid, number)
	}
	a := seccompAddFD{id: n.id}
	if cloexec {
		a.numberFlags = unix.O_CLOEXEC
	}
	if number >= 0 {
		a.flags, a.number = unix.SECCOMP_ADDFD_FLAG_SETFD, uint32(number)
	}
	if answer {
		a.flags |= unix.SECCOMP_ADDFD_FLAG_SEND
	}
	send := func() error {
		return linux.Control(f, func(src int) error {
			a.src = uint32(src)
			fd, err = n.ioctl("SECCOMP_IOCTL_NOTIF_ADDFD", unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
			return err
		})
	}
	if answer {
		err := n.once(send)
		return fd, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.answered {
		return -1, fmt.Errorf("%w: the system call has been answered", ErrState)
	}
	err = send()
	return fd, err
}

func (n *notified) valid() bool {
	id := n.id
	_, err := n.ioctl("SECCOMP_IOCTL_NOTIF_ID_VALID", unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id))
	return err == nil
}

// memory reads or writes the caller's memory. The file is opened first and the call looked at after that: as long as it waits,
// the process that was opened is the caller, and not one that got its number.
func (n *notified) memory(addr uint64, buf []byte, write bool) (int, error) {
	if len(buf) > maxNotifyMemory {
		return 0, fmt.Errorf("%w: %d bytes; at most %d", ErrInvalid, len(buf), maxNotifyMemory)
	}
	if n.pid == 0 {
		return 0, fmt.Errorf("%w: the caller is not in this program's pid namespace", ErrUnsupported)
	}
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile("/proc/"+strconv.Itoa(n.pid)+"/mem", flags, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if !n.valid() {
		return 0, fmt.Errorf("%w: the call does not wait any more", os.ErrProcessDone)
	}
	if int64(addr) < 0 {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: unix.EFAULT}
	}
	if write {
		return f.WriteAt(buf, int64(addr))
	}
	got, err := f.ReadAt(buf, int64(addr))
	if got > 0 {
		err = nil
	}
	return got, err
}
