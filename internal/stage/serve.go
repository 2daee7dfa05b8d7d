//go:build linux

package stage

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Serving is a loop of a stage that receives questions from the host program, each with one open file:
//
//	s := EmitServing(b, size, "<file>")      // wait for a question
//	labels := s.Dispatch(b, n)               // go on at the label of its number
//	… for each: b.Mark(labels[i]), what it asks for, an answer …
//	s.Again(b)                               // close the file, wait for the next one
type Serving struct {
	// Area is where a question is: its number, and what belongs to it.
	Area program.Word
	// File is the descriptor of the file.
	File program.Arg

	zero program.Word
	loop program.Label
}

// EmitServing emits the receiving half of the loop. A question has up to size bytes, a multiple of 8; shown is how the file is printed. The end of the
// socket ends the stage.
func EmitServing(b *program.Builder, size int, shown string) *Serving {
	s := &Serving{Area: b.Words(make([]uint64, size/8)...)}
	control := b.Words(0, 0, 0, 0)
	hdr := binary.NativeEndian.AppendUint64(make([]byte, 24, 56), 1)
	hdr = append(hdr, make([]byte, 24)...)
	hdr[40] = 24 // what a message with one descriptor takes
	hdr = append(hdr, make([]byte, 8)...)
	iov := binary.NativeEndian.AppendUint64(make([]byte, 8, 16), uint64(size))
	message := program.Bytes(hdr, "{...}").With(16, program.Bytes(iov, "").With(0, s.Area.Addr())).With(32, control.Addr())
	s.File = (control + 2).HalfShown(0, shown)
	s.zero, s.loop = b.Words(0), b.NewLabel()
	b.Mark(s.loop)
	b.FailZero(b.Call(unix.SYS_RECVMSG, "recvmsg", b.Input(HostInput), message, program.Named(unix.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC")), unix.ESRCH)
	return s
}

// Dispatch emits the jumps to the calls of a question, of which there are n. A number without a call ends the stage.
func (s *Serving) Dispatch(b *program.Builder, n int) []program.Label {
	labels := make([]program.Label, n)
	for i := range labels {
		labels[i] = b.NewLabel()
		b.JumpBelow(s.Area, program.Int(i+1), labels[i])
	}
	b.ExitGroup(1)
	return labels
}

// Again emits the end of the loop.
func (s *Serving) Again(b *program.Builder) {
	b.Close(s.File)
	b.JumpBelow(s.zero, program.Int(1), s.loop)
}
