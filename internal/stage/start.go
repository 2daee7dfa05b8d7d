//go:build linux

package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// HostInput is the name of the input that stands for the stage's end of its socket to the host. Every program
// for a stage may use it; Start supplies it.
const HostInput = "host"

// Config says how to make a stage.
type Config struct {
	// Program is what the stage performs. It must end in an exec or an exit.
	Program *program.Program
	// Files are the program's inputs by name, except HostInput. They stay open in the host.
	Files map[string]int
	// Places is below which number the program puts descriptors in places of their own, three at least. Inputs are not
	// there, and nothing that the program opens is: the places hold copies of the socket until the program fills them,
	// which one that executes a command has to do.
	Places int
	// Namespaces are the CLONE_NEW flags of the first clone.
	Namespaces uint64
	// Cgroup is a cgroup v2 directory into which the stage is born (CLONE_INTO_CGROUP, Linux 5.7), or -1.
	Cgroup int
	// UIDMap and GIDMap are id maps that the new process writes for itself before anything else, in the form
	// of /proc/PID/uid_map; used with CLONE_NEWUSER, for maps of the caller's own ids only.
	UIDMap, GIDMap string

	socket int // the number of the stage's socket where that is the host's: in a program that goes on; 0: as numbers says
}

// Child is a process made by Start: first the stage, later the command.
type Child struct {
	Pid   int    // in the host program's pid namespace
	Pidfd int    // the caller closes it
	place *place // of the programs, where the process is a copy
	next  uintptr
	// Conn is the host's end of the socket. Start hands it over with the Child; the caller closes it.
	Conn *Conn
}

// Errors of Start.
var (
	// ErrExecForbidden: no way was found to execute code that stands in no directory, nor could the program be copied.
	ErrExecForbidden = errors.New("executing an anonymous file is forbidden here")
	errNoIntoCgroup  = errors.New("clone3 is not available, so a process cannot be born in a cgroup")
)

// NeedsJoin reports whether err means that the process cannot be born in its cgroup (clone3 answers ENOSYS, as
// older seccomp profiles of outer containers make it; or see [KillsBorn]): the program must join by itself.
func NeedsJoin(err error) bool {
	return errors.Is(err, errNoIntoCgroup) || errors.Is(err, errBornKilled)
}

// Start makes a stage and returns when it has left the host's memory. The program then runs concurrently.
func Start(c Config) (*Child, error) {
	host, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	if c.Program.GoesOn() {
		theirs = outOfTheWay(theirs)
	}
	defer unix.Close(theirs)
	in, err := c.inputs(theirs)
	if err == nil {
		defer in.close()
		if c.Program.GoesOn() {
			c.socket = in.host
		}
		var child *Child
		if child, err = startWith(c, in); err == nil {
			child.Conn = &Conn{fd: host, p: c.Program, place: child.place, theirs: in.host, nextBase: child.next}
			return child, nil
		}
	}
	unix.Close(host)
	return nil, err
}

// startWith tries the ways to make an executable, beginning with the one that worked last.
func startWith(c Config, in *inputs) (*Child, error) {
	if child, err := startSealed(c, in); child != nil || err != nil {
		return child, err
	}
	var errs []error
	fds, report := c.numbers()
	for i := int(exeMode.Load()); i < len(exeMakers); i++ {
		exe, next, err := writeExe(exeMakers[i], c.Program, fds, report)
		if err != nil {
			errs = append(errs, err)
			if errors.Is(err, os.ErrPermission) { // forbidden for good, unlike a lack of descriptors
				exeMode.CompareAndSwap(int32(i), int32(i+1))
			}
			continue
		}
		child, err := hop(c, exe, in)
		unix.Close(exe)
		if err == nil || !errors.Is(err, errHopExec) {
			copied.Store(false)
			if child != nil {
				child.next = next
			}
			return child, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", exeMakers[i].name, err))
		exeMode.CompareAndSwap(int32(i), int32(i+1))
	}
	exeMode.Store(0) // nothing is remembered as hopeless: the restriction may be lifted
	child, err := startCopy(c, in)
	if err == nil || NeedsJoin(err) {
		copied.Store(err == nil)
		return child, err
	}
	errs = append(errs, fmt.Errorf("%s: %w", copyName, err))
	return nil, fmt.Errorf("%w: %w (allow one of them: vm.memfd_noexec below 2, or /dev/shm or /tmp mounted without noexec)", ErrExecForbidden, errors.Join(errs...))
}

// errHopExec marks a refused execveat.
var errHopExec = errors.New("execveat refused")

// hop makes the child that borrows the host's memory just long enough to execute the stage.
func hop(c Config, exe int, in *inputs) (*Child, error) {
	exe, err := in.raise(exe, c.above())
	if err != nil {
		return nil, err
	}
	p, err := hopProgram(c, strconv.Itoa(exe))
	if err != nil {
		return nil, err
	}
	return hopBy(p, c, exe, in)
}

// hopBy is hop with its program.
func hopBy(p *program.Program, c Config, exe int, in *inputs) (*Child, error) {
	own := make([]int, len(p.Inputs()))
	for i, name := range p.Inputs() {
		switch name {
		case exeInput:
			own[i] = exe
		case HostInput:
			own[i] = in.host
		default:
			own[i] = in.fds[slices.Index(c.Program.Inputs(), name)]
		}
	}
	buf := imagePool.Get().(*[]byte)
	defer imagePool.Put(buf)
	mem, err := encodeInPlace(p, buf, own, -1) // its failure is read from the memory: the socket is the stage's
	if err != nil {
		return nil, err
	}
	pid, pidfd, err := cloneRun(mem, c.Namespaces, c.Cgroup)
	if err != nil {
		return nil, err
	}
	// The failure record lies in memory that was shared: no message needs to be read.
	if addr := binary.NativeEndian.Uint64(mem); addr != 0 {
		Reap(pidfd)
		unix.Close(pidfd)
		i := program.OpIndex(addressOf(mem), addr)
		err := p.Error(i, unix.Errno(binary.NativeEndian.Uint64(mem[8:])))
		if p.Step(i).Object == exeStep && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.E2BIG) {
			return nil, fmt.Errorf("%w: %w", errHopExec, err)
		}
		return nil, err
	}
	return &Child{Pid: pid, Pidfd: pidfd}, nil
}

func socketpair() (host, theirs int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	return p[0], p[1], nil
}

// Conn is the host's end of the socket to a stage.
type Conn struct {
	fd     int
	p      *program.Program
	place  *place                                       // nil for an executed stage
	decode func(address uint64, errno unix.Errno) error // for programs that were made elsewhere

	theirs   int // number of the stage's end
	next     *program.Program
	nextBase uintptr
}

// NewConn takes over a connection to a stage that another program made, which waits as [EmitAccept] does. decode says
// what a failure means.
func NewConn(fd int, decode func(address uint64, errno unix.Errno) error) *Conn {
	return &Conn{fd: fd, decode: decode}
}

// Address is where an operation of a stage's program stands, as failures name it.
func Address(op int) uint64 { return uint64(program.Entry(dataBase)) + uint64(op)*program.OpSize }

// Message is what a stage says at a sync point.
type Message struct {
	Tag   uint64 // which sync point; below 4096
	Value uint64
	FD    int // a descriptor that came with it, or -1
}

// MessageSize is the size of a message and of a failure record: two 64-bit words.
const MessageSize = 16

// Recv returns the next message of the stage. It returns io.EOF when the stage has executed the command or has
// died without a word, and a *program.StepError when a step failed.
func (c *Conn) Recv() (Message, error) {
	m := Message{FD: -1}
	var buf [MessageSize]byte
	var oob [32]byte
	reset := false
	for {
		n, oobn, _, _, err := unix.Recvmsg(c.fd, buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		// A stage that ended before it read our release resets the connection. The kernel reports that once, and
		// before what the stage has said: its last message is still to be read.
		if err == unix.ECONNRESET && !reset {
			reset = true
			continue
		}
		if err != nil && err != unix.ECONNRESET {
			return m, os.NewSyscallError("recvmsg", err)
		}
		if err != nil || n == 0 {
			return m, io.EOF
		}
		if n != MessageSize {
			return m, fmt.Errorf("message of %d bytes from the stage", n)
		}
		m.FD = passedFD(oob[:oobn])
		m.Tag, m.Value = binary.NativeEndian.Uint64(buf[:]), binary.NativeEndian.Uint64(buf[8:])
		if m.Tag < 4096 {
			return m, nil
		}
		switch errno := unix.Errno(m.Value); {
		case c.decode != nil:
			return m, c.decode(m.Tag, errno)
		case c.next != nil && uintptr(m.Tag) >= c.nextBase && uintptr(m.Tag) < c.nextBase+program.MaxNext:
			return m, c.next.Error(program.OpIndex(c.nextBase, m.Tag), errno)
		case c.place != nil:
			return m, c.place.fault(c.p, m.Tag, errno)
		default:
			return m, c.p.Error(program.OpIndex(dataBase, m.Tag), errno)
		}
	}
}

func passedFD(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	for _, fd := range fds[1:] {
		unix.Close(fd)
	}
	return fds[0]
}

// AwaitEnd returns when the stage has executed the command or has died. Unlike Recv it is not woken by what the stage
// says meanwhile, which remains to be received.
func (c *Conn) AwaitEnd() {
	p := []unix.PollFd{{Fd: int32(c.fd)}} // no events: the end is always told
	for {
		if _, err := unix.Poll(p, -1); err != unix.EINTR {
			return
		}
	}
}

// Release lets the stage go on from a sync point. A stage that has ended already is no error here: Recv tells why.
func (c *Conn) Release() error {
	for {
		err := unix.Send(c.fd, []byte{1}, unix.MSG_NOSIGNAL)
		if err == unix.EPIPE || err == unix.ECONNRESET {
			return nil
		}
		if err != unix.EINTR {
			return os.NewSyscallError("send", err)
		}
	}
}

// Shut ends the conversation without closing the host's end: Recv and AwaitEnd return, also where another goroutine is in them, once
// what the stage has said so far is received.
func (c *Conn) Shut() { _ = unix.Shutdown(c.fd, unix.SHUT_RDWR) }

// Bound limits the time that each Recv waits.
func (c *Conn) Bound(d time.Duration) {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	_ = unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// Close closes the host's end. A stage that waits at a sync point then ends itself. Closing twice is harmless.
func (c *Conn) Close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd, c.p = -1, nil
	}
}

// Fd returns the descriptor, for polling.
func (c *Conn) Fd() int { return c.fd }

// EmitSync emits a sync point: the stage says tag and waits to be released. The program ends if the host is
// gone.
func EmitSync(b *program.Builder, tag uint64) {
	msg := make([]byte, MessageSize)
	binary.NativeEndian.PutUint64(msg, tag)
	b.Call(unix.SYS_WRITE, "write", b.Input(HostInput), program.Bytes(msg, "sync "+strconv.FormatUint(tag, 10)), program.Int(MessageSize))
	EmitWait(b)
}

// EmitWait emits a silent sync point: the stage waits to be released.
func EmitWait(b *program.Builder) {
	r := b.Read(b.Input(HostInput), 8)
	b.FailZero(r, unix.ESRCH)
}

// Ask sends a message with descriptors to a stage that waits for one by its own program. A stage that has ended already is no
// error here: Recv tells why.
func (c *Conn) Ask(msg []byte, fds ...int) error {
	for {
		err := unix.Sendmsg(c.fd, msg, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		if err == unix.EPIPE || err == unix.ECONNRESET {
			return nil
		}
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// Send lets the stage go on from an EmitReceive, with copies of the descriptors that it waits for. A stage that has ended
// already is no error here: Recv tells why.
func (c *Conn) Send(fds ...int) error { return c.Ask([]byte{1}, fds...) }

// EmitReceive emits a sync point at which the stage waits for descriptors, which Send passes, and returns them by the
// given names.
func EmitReceive(b *program.Builder, names ...string) []program.Arg {
	const header = 16 // struct cmsghdr
	space := (header + 4*len(names) + 7) &^ 7
	data := b.Words(0)
	control := b.Words(make([]uint64, space/8+1)...) // one more, since a half reads on into the next
	iov := make([]byte, 16)
	binary.NativeEndian.PutUint64(iov[8:], 8)
	hdr := make([]byte, 56)
	binary.NativeEndian.PutUint64(hdr[24:], 1)
	binary.NativeEndian.PutUint64(hdr[40:], uint64(space))
	shown := "{msg_control=[{cmsg_type=SCM_RIGHTS, cmsg_data=[<" + strings.Join(names, ">, <") + ">]}]}"
	arg := program.Bytes(hdr, shown).With(16, program.Bytes(iov, "").With(0, data.Addr())).With(32, control.Addr())
	r := b.Call(unix.SYS_RECVMSG, "recvmsg", b.Input(HostInput), arg, program.Named(unix.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC"))
	b.FailZero(r, unix.ESRCH)
	out := make([]program.Arg, len(names))
	for i, name := range names {
		out[i] = (control + header/8 + program.Word(i/2)).HalfShown(i%2, "<"+name+">")
	}
	return out
}
