//go:build linux

package stage

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// The keeper is the one process that outlives the host program for a moment: it holds a pidfd of every
// container's first process and kills them all when the host is gone.
//
//	host ── socket ──▶ keeper          each message: (slot, highest slot) and a pidfd
//	  ✗ end of file                    the host has ended, in whatever way
//	                   pidfd_send_signal(SIGKILL) to every slot; exit
//
// It is the interpreter running a loop of a few system calls: some 20 KiB, no Go runtime. The parent-death
// signal would need no process but does not hold: it fires when the thread dies that made the child, the
// payload can clear it, and so do changes of credentials (prctl(2), PR_SET_PDEATHSIG).
type keeper struct {
	mu    sync.Mutex
	sock  int // -1 when there is no keeper
	conn  *Conn
	pid   int
	slots []int // pidfds of the host by slot; -1 is free
	free  []int
}

var theKeeper = keeper{sock: -1}

// firstSlot leaves room for the few descriptors that the keeper has anyway.
const firstSlot = 8

// Keep makes the keeper responsible for the process behind pidfd, which must stay open until the returned
// function is called: when the process has ended.
func Keep(pidfd int) (release func(), err error) {
	k := &theKeeper
	k.mu.Lock()
	defer k.mu.Unlock()
	slot := len(k.slots)
	if n := len(k.free); n > 0 {
		slot = k.free[n-1]
	}
	if err := k.register(slot, pidfd); err != nil {
		return nil, err
	}
	if slot == len(k.slots) {
		k.slots = append(k.slots, pidfd)
	} else {
		k.free = k.free[:len(k.free)-1]
		k.slots[slot] = pidfd
	}
	return sync.OnceFunc(func() { k.forget(slot) }), nil
}

// forget frees a slot. The keeper keeps its stale pidfd until the slot is used again: a signal to a process
// that has been collected does nothing.
func (k *keeper) forget(slot int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slots[slot] = -1
	k.free = append(k.free, slot)
}

// register sends a pidfd, starting the keeper if there is none or if it has died.
func (k *keeper) register(slot, pidfd int) error {
	if k.sock >= 0 {
		err := k.send(slot, pidfd)
		if !ended(err) {
			return err // also nil. A living keeper is not replaced: closing its socket would make it kill everything
		}
		k.stop()
	}
	if err := k.start(); err != nil {
		return err
	}
	for i, fd := range k.slots { // a new keeper takes over what the old one had
		if fd >= 0 {
			if err := k.send(i, fd); err != nil {
				return err
			}
		}
	}
	err := k.send(slot, pidfd)
	if ended(err) { // it says why
		var se *program.StepError
		if _, rerr := k.conn.Recv(); errors.As(rerr, &se) {
			err = se
		}
	}
	return err
}

// ended reports whether err is what comes of sending to a keeper that has ended.
func ended(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// send hands a pidfd to the keeper. The cmsghdr is laid out by hand: 16 bytes of header and one descriptor.
func (k *keeper) send(slot, pidfd int) error {
	var buf [16]byte
	binary.NativeEndian.PutUint64(buf[:], uint64(firstSlot+slot))
	binary.NativeEndian.PutUint64(buf[8:], uint64(firstSlot+max(slot+1, len(k.slots))))
	for {
		err := unix.Sendmsg(k.sock, buf[:], unix.UnixRights(pidfd), nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

func (k *keeper) start() error {
	p, err := keeperProgram()
	if err != nil {
		return err
	}
	c, err := Start(Config{Program: p, Cgroup: -1})
	if err != nil {
		return err
	}
	k.sock, k.conn, k.pid = c.Conn.fd, c.Conn, c.Pid
	go k.watch(c.Pidfd, c.Conn)
	return nil
}

// watch waits for the keeper's death, which ends nothing by itself: containers live on, and another keeper
// takes over at once if there are any. A start may have been faster; the socket of its keeper can have the number of this one's.
func (k *keeper) watch(pidfd int, conn *Conn) {
	p := NewPidfd(pidfd)
	err := p.AwaitExit()
	Reap(p.Fd())
	p.Close()
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != conn {
		return
	}
	k.stop()
	for i, fd := range k.slots {
		if fd >= 0 {
			_ = k.register(i, fd) // starts one and hands over everything
			return
		}
	}
}

func (k *keeper) stop() {
	k.conn.Close()
	k.sock, k.conn, k.pid = -1, nil, 0
}

// KeeperPid returns the process id of the keeper, or 0.
func KeeperPid() int {
	theKeeper.mu.Lock()
	defer theKeeper.mu.Unlock()
	return theKeeper.pid
}

// keeperProgram is the loop of the keeper.
var keeperProgram = sync.OnceValues(func() (*program.Program, error) {
	b := program.NewBuilder(false)
	b.Step("leave", "the host's session, directory and descriptors")
	b.Setsid()
	b.Chdir("/")
	b.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte("caisson-keeper\x00"), `"caisson-keeper"`))
	const sock = 0
	b.Dup3(b.Input(HostInput), sock, 0).Ignore(unix.EINVAL) // EINVAL: it is 0 already
	b.CloseRange(1, 0)
	signals := make([]byte, 8) // nothing blocked; the mask is what clone's caller had
	b.Call(unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", program.Named(unix.SIG_SETMASK, "SIG_SETMASK"), program.Bytes(signals, "[]"), program.Null(), program.Int(8))

	b.Step("hold pidfds until", "the host ends")
	slot := b.Words(0, 0) // what a message says: slot, one more than the highest
	limit := slot + 1
	control := b.Words(0, 0, 0)         // cmsghdr, then the descriptor in the low half of the third word
	hdr := b.Words(0, 0, 0, 1, 0, 0, 0) // struct msghdr; msg_iovlen is 1
	consts := b.Words(24, 0)
	iov := make([]byte, 16)
	binary.NativeEndian.PutUint64(iov[8:], 16)
	iovArg := program.Bytes(iov, "iov").With(0, slot.Addr())
	b.Point(hdr+2, iovArg)         // msg_iov
	b.Point(hdr+4, control.Addr()) // msg_control
	loop, dead := b.NewLabel(), b.NewLabel()
	b.Mark(loop)
	b.CopyWord(consts, hdr+5)   // msg_controllen
	b.CopyWord(consts+1, hdr+6) // msg_flags
	b.CopyWord(consts+1, control+2)
	r := b.Call(unix.SYS_RECVMSG, "recvmsg", program.Int(sock), hdr.Addr(), program.Named(unix.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC")).
		IgnoreTo(dead, unix.ECONNRESET)
	b.JumpZero(r, dead)
	b.Call(unix.SYS_DUP3, "dup3", (control + 2).Value(), slot.Value(), program.Int(unix.O_CLOEXEC)).Ignore(unix.EBADF)
	b.Call(unix.SYS_CLOSE, "close", (control + 2).Value()).Then(loop)
	b.Step("kill", "every container")
	b.Mark(dead)
	i := b.Words(firstSlot)
	kill := b.NewLabel()
	b.Mark(kill)
	b.Call(unix.SYS_PIDFD_SEND_SIGNAL, "pidfd_send_signal", i.Value(), program.Named(unix.SIGKILL, "SIGKILL"), program.Null(), program.Int(0)).
		Ignore(unix.ESRCH, unix.EBADF, unix.EPERM)
	b.Add(i, 1)
	b.JumpBelow(i, limit.Value(), kill)
	b.ExitGroup(0)
	return b.Build()
})
