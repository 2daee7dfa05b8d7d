//go:build linux

package stage

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// EmitPass emits that the stage sends a tag and the descriptor that an operation returned, which [Conn.Recv] receives.
func EmitPass(b *program.Builder, tag uint64, fd program.OpRef) {
	control := b.Words(20, uint64(unix.SOL_SOCKET)|uint64(unix.SCM_RIGHTS)<<32, 0)
	b.Copy(fd, control+2)
	EmitPassControl(b, tag, control)
}

// EmitPassControl emits that the stage sends a tag and the descriptor in the third word of control. unused are arguments that the
// call does not have.
func EmitPassControl(b *program.Builder, tag uint64, control program.Word, unused ...program.Arg) {
	msg := b.Words(tag, 0)
	iov := make([]byte, 16)
	binary.NativeEndian.PutUint64(iov[8:], MessageSize)
	hdr := make([]byte, 56)
	binary.NativeEndian.PutUint64(hdr[24:], 1)
	binary.NativeEndian.PutUint64(hdr[40:], 24)
	arg := program.Bytes(hdr, fmt.Sprintf("{msg_iov=[{iov_base=sync %d, iov_len=%d}], msg_control=[{cmsg_type=SCM_RIGHTS, ...}]}", tag, MessageSize)).With(16, program.Bytes(iov, "").With(0, msg.Addr())).With(32, control.Addr())
	args := append([]program.Arg{b.Input(HostInput), arg, program.Named(unix.MSG_NOSIGNAL, "MSG_NOSIGNAL")}, unused...)
	b.Call(unix.SYS_SENDMSG, "sendmsg", args...)
}
