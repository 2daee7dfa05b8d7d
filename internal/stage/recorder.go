//go:build linux

package stage

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Recorder is what the keeper of a container that outlives its program needs.
type Recorder struct {
	// Status is the file into which it writes.
	Status program.Arg
	// Helper is a clone whose child only makes the container's first process as its sibling and ends; it is collected
	// before. Nil where there is none.
	Helper *program.OpRef
	// End is a pipe that does not block, from which the siginfo_t is read of a command that is not the first process: see
	// EmitInit. Nil where there is none.
	End *program.Arg
	// At and Size are the place of what it writes: a mark, the time of the end, why, then siginfo_t and struct rusage at the
	// given offsets from At. All are multiples of 8.
	At, Size, SiginfoAt, RusageAt int
}

// EmitRecorder emits what the keeper of a container that outlives its program does: it is the parent of the container's
// first process, waits for its end, writes how and when it ended with one call, and ends itself. It holds nothing of the
// program's but the status file. Of signals only SIGKILL reaches it: who stops a unit of systemd's sends SIGTERM to all in it, and it is to tell how the
// container took that.
//
//	program ──▶ keeper ──▶ first process        the program may end now
//	              waitid, clock_gettime, pwrite
func EmitRecorder(b *program.Builder, r Recorder) {
	b.Step("keep", "nothing of the host program")
	b.Chdir("/")
	b.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte(RecorderName+"\x00"), `"`+RecorderName+`"`))
	const status = 0
	b.Dup3(r.Status, status, 0).Ignore(unix.EINVAL) // EINVAL: it is 0 already
	const end = 1
	if r.End != nil {
		b.Dup3(*r.End, end, 0).Ignore(unix.EINVAL)
		b.CloseRange(end+1, 0)
	} else {
		b.CloseRange(end, 0)
	}
	b.Call(unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", program.Named(unix.SIG_SETMASK, "SIG_SETMASK"), program.Bytes(bytes.Repeat([]byte{0xff}, 8), "~[]"), program.Null(), program.Int(8))

	b.Step("wait for", "the end of the container")
	area := b.Words(make([]uint64, r.Size/8)...)
	mark := b.Words(1)
	at := func(off int) program.Arg { return (area + program.Word(off/8)).Addr() }
	options := program.Named(unix.WEXITED|unix.WALL, "WEXITED|__WALL")
	if r.Helper != nil {
		b.Call(unix.SYS_WAITID, "waitid", program.Named(unix.P_PID, "P_PID"), r.Helper.Result(), program.Null(), options, program.Null()).Ignore(unix.ECHILD)
	}
	gone := b.NewLabel()
	b.Call(unix.SYS_WAITID, "waitid", program.Named(unix.P_ALL, "P_ALL"), program.Int(0), at(r.SiginfoAt), options, at(r.RusageAt)).
		IgnoreTo(gone, unix.ECHILD)
	if r.End != nil { // nothing is there if the first process was killed
		b.Call(unix.SYS_READ, "read", program.Int(end), at(r.SiginfoAt), program.Int(siginfoSize)).Ignore(unix.EAGAIN)
	}
	b.Step("record", "the end of the container")
	b.Call(unix.SYS_CLOCK_GETTIME, "clock_gettime", program.Named(unix.CLOCK_REALTIME, "CLOCK_REALTIME"), at(8))
	b.CopyWord(mark, area)
	b.Call(unix.SYS_PWRITE64, "pwrite64", program.Int(status), at(0), program.Int(r.Size), program.Int(r.At))
	b.Mark(gone)
	b.ExitGroup(0)
}

// RecorderName is what such a keeper calls itself.
const RecorderName = "caisson-keeper"

// EmitStamp emits that a mark and the time are written to a file, at a place.
func EmitStamp(b *program.Builder, file program.Arg, at int) {
	w := b.Words(1, 0, 0)
	b.Call(unix.SYS_CLOCK_GETTIME, "clock_gettime", program.Named(unix.CLOCK_REALTIME, "CLOCK_REALTIME"), (w + 1).Addr())
	b.Call(unix.SYS_PWRITE64, "pwrite64", file, w.Addr(), program.Int(24), program.Int(at))
}

// EmitAccept emits a sync point for any program: the stage waits for one that connects to the listening socket and
// releases it. The connection then takes the place of the socket to the host; one that is closed without a release is
// forgotten.
func EmitAccept(b *program.Builder, listener program.Arg) {
	host := b.Input(HostInput)
	wait := b.NewLabel()
	b.Mark(wait)
	conn := b.Call(unix.SYS_ACCEPT4, "accept4", listener, program.Null(), program.Null(), program.Named(unix.SOCK_CLOEXEC, "SOCK_CLOEXEC"))
	b.Call(unix.SYS_DUP3, "dup3", conn.Result(), host, program.Flags(uint(unix.O_CLOEXEC), &dupFlags))
	b.Close(conn.Result())
	n := b.Read(host, 8).IgnoreTo(wait, unix.ECONNRESET)
	b.JumpZero(n, wait)
}

var dupFlags = []program.Flag{{Bit: unix.O_CLOEXEC, Name: "O_CLOEXEC"}}
