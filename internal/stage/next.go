//go:build linux

package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// A stage can wait for the rest of its program, which is made when more is known. It reads it from its socket into memory
// that it has for that, and goes on there. Nothing is executed for it, so nothing can forbid it.

// nextChunk is how many bytes one message brings.
const nextChunk = 32 << 10

// outOfTheWayAbove is where the number of the stage's socket is looked for, so that descriptors of the command have room below.
const outOfTheWayAbove = 300

// outOfTheWay gives a descriptor a high number, where that is allowed.
func outOfTheWay(fd int) int {
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, outOfTheWayAbove)
	if err != nil { // a low RLIMIT_NOFILE, or none left
		return fd
	}
	unix.Close(fd)
	return high
}

// EmitNext emits a sync point at which the stage waits for the rest of its program, which SendNext sends. It must come last.
func EmitNext(b *program.Builder, tag uint64) {
	msg := make([]byte, MessageSize)
	binary.NativeEndian.PutUint64(msg, tag)
	host := b.Input(HostInput)
	b.Call(unix.SYS_WRITE, "write", host, program.Bytes(msg, "sync "+strconv.FormatUint(tag, 10)), program.Int(MessageSize))
	size := b.Words(0, 0, 0, 0)
	got, at, end := size+1, size+2, size+3
	b.Point(at, program.Next())
	b.Point(end, program.Next())
	r := b.Call(unix.SYS_READ, "read", host, size.AddrShown("<size>"), program.Int(8))
	b.FailZero(r, unix.ESRCH)
	b.AddWord(end, size)
	loop := b.NewLabel()
	b.Mark(loop)
	r = b.Call(unix.SYS_READ, "read", host, at.Value(), program.Int(nextChunk))
	b.FailZero(r, unix.ESRCH)
	b.Copy(r, got)
	b.AddWord(at, got)
	b.JumpBelow(at, end.Value(), loop)
	b.JumpNext()
}

// ErrNextTooLong is returned by SendNext.
var ErrNextTooLong = errors.New("more than a waiting process has room for")

// Places is how many descriptors below the stage's socket there are in a stage that waits for the rest of its program.
func (c *Conn) Places() int { return c.theirs }

// MaxSent is how many descriptors one message can bring (SCM_MAX_FD).
const MaxSent = 253

// maxPooledImage is the largest memory that is kept for the next start.
const maxPooledImage = 256 << 10

// SendNext sends the rest of the program to a stage that waits as EmitNext does. Its only input can be HostInput. Descriptors
// are for an EmitReceive with which it begins. A stage that has ended already is no error here: Recv tells why.
func (c *Conn) SendNext(p *program.Program, fds ...int) error {
	buf := imagePool.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxPooledImage {
			imagePool.Put(buf)
		}
	}()
	inputs := make([]int, len(p.Inputs()))
	for i, name := range p.Inputs() {
		if inputs[i] = c.theirs; name != HostInput {
			return fmt.Errorf("%w: %q", program.ErrInputs, name)
		}
	}
	mem, err := p.Encode(*buf, c.nextBase, inputs, -1)
	if err != nil {
		return err
	}
	*buf = mem
	if len(mem) > program.MaxNext-16 {
		return fmt.Errorf("%w: %d bytes; at most %d", ErrNextTooLong, len(mem), program.MaxNext-16)
	}
	c.next = p
	var size [8]byte
	binary.NativeEndian.PutUint64(size[:], uint64(len(mem)))
	if err := c.send(size[:]); err != nil {
		return err
	}
	for len(mem) > 0 {
		n := min(len(mem), nextChunk)
		if err := c.send(mem[:n]); err != nil {
			return err
		}
		mem = mem[n:]
	}
	if len(fds) == 0 {
		return nil
	}
	return c.Send(fds...)
}

// send sends one message. A stage that has ended already is no error.
func (c *Conn) send(b []byte) error {
	for {
		err := unix.Send(c.fd, b, unix.MSG_NOSIGNAL)
		if err == unix.EPIPE || err == unix.ECONNRESET {
			return nil
		}
		if err != unix.EINTR {
			return os.NewSyscallError("send", err)
		}
	}
}
