package rootfs

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Usage tells how full the writable layer of a root filesystem is; root is its directory "/" or any file in
// it, O_PATH is enough. For an overlay the numbers are those of its upper layer.
func Usage(root *os.File) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return Space{}, &Error{Op: "ask how full is", Object: root.Name(), Err: err}
	}
	return Space{
		Size: int64(st.Blocks) * int64(st.Bsize), Free: int64(st.Bavail) * int64(st.Bsize),
		Inodes: int64(st.Files), Unused: int64(st.Ffree),
	}, nil
}

// Kept is the root filesystem of a container, held so that it outlives the container's processes. The root
// directory alone keeps the root mount, without what is mounted below it; the mount namespace keeps those.
type Kept struct {
	// Root is the container's "/", opened with O_PATH. Open what is in it with [NewRoot] or openat2(2)
	// and RESOLVE_IN_ROOT only: the links in it are the container's.
	Root *os.File
	ns   *os.File
}

// Close lets go. The mounts vanish with the last who holds them.
func (k *Kept) Close() error {
	if k.ns == nil {
		return k.Root.Close()
	}
	return errors.Join(k.Root.Close(), k.ns.Close())
}

// Hand emits, after Populate, that the root directory and the mount namespace are sent over the unix socket
// that sock is; [Receive] takes them.
func (p *Plan) Hand(b *program.Builder, sock program.Arg) {
	_, proc := p.own["/proc"]
	hand(b, sock, proc)
}

func hand(b *program.Builder, sock program.Arg, proc bool) {
	b.Step("hand out the root filesystem", "")
	open := []program.OpRef{b.Openat(program.Cwd(), "/", unix.O_PATH|unix.O_DIRECTORY, 0)}
	if proc {
		open = append(open, b.Openat(program.Cwd(), "/proc/self/ns/mnt", unix.O_RDONLY, 0))
	}
	// One control message for each descriptor: length, level and type, descriptor; three words.
	var words []uint64
	for range open {
		words = append(words, uint64(unix.CmsgLen(4)), unix.SOL_SOCKET|unix.SCM_RIGHTS<<32, 0)
	}
	control := b.Words(words...)
	for i, o := range open {
		b.Copy(o, control+program.Word(3*i+2))
	}
	iov := make([]byte, 16)
	binary.NativeEndian.PutUint64(iov[8:], 1)
	msg := make([]byte, 56)
	binary.NativeEndian.PutUint64(msg[24:], 1)
	binary.NativeEndian.PutUint64(msg[40:], uint64(8*len(words)))
	arg := program.Bytes(msg, "{SCM_RIGHTS}").With(16, program.Bytes(iov, "").With(0, program.Str("r"))).With(32, control.Addr())
	b.Call(unix.SYS_SENDMSG, "sendmsg", sock, arg, program.Named(unix.MSG_NOSIGNAL, "MSG_NOSIGNAL"))
	for _, o := range open {
		b.Close(o.Result())
	}
}

// Receive takes what Hand sent, from the other end of the socket. It does not wait: nothing there yet is
// EAGAIN.
func Receive(sock *os.File) (*Kept, error) {
	oob := make([]byte, 4*unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(sock.Fd()), make([]byte, 1), oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err == nil && n == 0 {
		err = unix.ENODATA
	}
	if err != nil {
		return nil, &Error{Op: "receive root filesystem", Err: err}
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, &Error{Op: "receive root filesystem", Err: err}
	}
	var fds []int
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) == 0 {
		return nil, &Error{Op: "receive root filesystem", Err: unix.EBADMSG}
	}
	k := &Kept{Root: os.NewFile(uintptr(fds[0]), "/")}
	if len(fds) > 1 {
		k.ns = os.NewFile(uintptr(fds[1]), "/proc/self/ns/mnt")
	}
	return k, nil
}
