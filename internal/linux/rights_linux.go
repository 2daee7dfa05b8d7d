package linux

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxRights is the greatest number of files in one message: SCM_MAX_FD.
const MaxRights = 253

// Socketpair makes two connected unix(7) sockets. typ is SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET, with
// SOCK_NONBLOCK if the files shall wait in the poller of the Go runtime.
func Socketpair(typ int) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}

// SendFiles sends data together with files as SCM_RIGHTS, in one message. data must not be empty: a stream
// socket carries descriptors only along with a byte. The files stay open and the caller's.
func SendFiles(conn *net.UnixConn, data []byte, files ...*os.File) error {
	if len(data) == 0 || len(files) > MaxRights {
		return fmt.Errorf("send of %d files with %d bytes: %w", len(files), len(data), unix.EINVAL)
	}
	return withFDs(files, nil, func(fds []int) error {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		n, oobn, err := conn.WriteMsgUnix(data, oob, nil)
		if err == nil && (n != len(data) || oobn != len(oob)) {
			err = unix.EMSGSIZE
		}
		return err
	})
}

// withFDs holds all files open while fn runs.
func withFDs(files []*os.File, fds []int, fn func(fds []int) error) error {
	if len(files) == 0 {
		return fn(fds)
	}
	return Control(files[0], func(fd int) error { return withFDs(files[1:], append(fds, fd), fn) })
}

// ReceiveFiles reads one message into data and takes at most limit files that come with it. A message with
// more files, or one that was cut short, is EMSGSIZE, and every file that came is closed. The end of the
// stream is io.EOF.
func ReceiveFiles(conn *net.UnixConn, data []byte, limit int) (n int, files []*os.File, err error) {
	if limit < 0 || limit > MaxRights {
		return 0, nil, fmt.Errorf("receive of at most %d files: %w", limit, unix.EINVAL)
	}
	// Room for one more than wanted, so that a surplus is seen and not silently dropped.
	oob := make([]byte, unix.CmsgSpace(4*(limit+1)))
	n, oobn, flags, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return 0, nil, err
	}
	files, err = parseRights(oob[:oobn])
	if err == nil && (len(files) > limit || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0) {
		err = os.NewSyscallError("recvmsg", unix.EMSGSIZE)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return 0, nil, err
	}
	return n, files, nil
}

// parseRights wraps every descriptor of a control message. Descriptors found before a fault come back too.
func parseRights(oob []byte) (files []*os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, ferr := unix.ParseUnixRights(&msgs[i])
		if ferr != nil {
			err = os.NewSyscallError("recvmsg", ferr)
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, err
}
