//go:build linux

package stage

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A Recyclable is a network namespace of which can be told whether it is as it was when it was new. Its methods are for one goroutine at a
// time.
type Recyclable struct {
	FD    int
	files []int  // of counters
	was   []byte // what they said
}

// counters are the files that tell what has been done in a network namespace: each packet, each refusal to send one, and each socket that is
// still there changes one (proc_pid_net(5)); and those of what may outlive a socket, flow labels of IPv6 and multicast groups.
var counters = []string{"dev", "sockstat", "snmp", "snmp6", "netstat", "ip6_flowlabel", "igmp", "igmp6"}

// TakeRecyclable returns a namespace like [TakeNetwork]'s. Besides CAP_SYS_ADMIN it needs a /proc that shows this program.
func TakeRecyclable() (*Recyclable, error) {
	fd, err := TakeNetwork()
	if err != nil {
		return nil, err
	}
	n := &Recyclable{FD: fd}
	if err = withinNetwork(fd, n.open); err == nil {
		n.was, err = n.read(nil)
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// keepers are the modules whose files below /proc/net take what root writes there, without a capability, and keep it for the next
// reader. They have them in every network namespace.
var keepers = []string{"/proc/thread-self/net/rpc", "/proc/thread-self/net/afs"}

// kept reports whether there is such a module.
func kept() bool {
	return slices.ContainsFunc(keepers, func(dir string) bool { return unix.Access(dir, unix.F_OK) == nil })
}

// open opens the counters of the namespace that this thread is in.
func (n *Recyclable) open() error {
	err := filepath.WalkDir("/proc/thread-self/net/", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o222 != 0 {
			err = &os.PathError{Op: "recycle", Path: name, Err: errors.ErrUnsupported} // what is written there is not counted
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range counters {
		name = "/proc/thread-self/net/" + name
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) { // of IPv6, where there is none
			continue
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		n.files = append(n.files, fd)
	}
	return nil
}

// read appends what the counters say.
func (n *Recyclable) read(out []byte) ([]byte, error) {
	var page [4 << 10]byte
	for _, fd := range n.files {
		begin := len(out)
		for at := int64(0); ; {
			k, err := unix.Pread(fd, page[:], at)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return out, os.NewSyscallError("pread", err)
			}
			if k == 0 {
				break
			}
			at += int64(k)
			out = append(out, page[:k]...)
		}
		if said := out[begin:]; bytes.HasPrefix(said, []byte("sockets:")) { // in the lines below are figures of the whole machine
			line, _, _ := bytes.Cut(said, []byte("\n"))
			out = out[:begin+len(line)]
		}
	}
	return out, nil
}

var countersRead = sync.Pool{New: func() any { return new([]byte) }}

// Unused reports whether all counters say what they said when the namespace was new: nobody has sent anything in it, nor tried to, and no socket is left.
// Who held CAP_NET_ADMIN or CAP_NET_RAW there can have changed what is not counted.
func (n *Recyclable) Unused() bool {
	buf := countersRead.Get().(*[]byte)
	defer countersRead.Put(buf)
	is, err := n.read((*buf)[:0])
	*buf = is
	return err == nil && bytes.Equal(is, n.was) && !kept()
}

// Close closes the namespace. Closing twice is harmless.
func (n *Recyclable) Close() {
	for _, fd := range n.files {
		unix.Close(fd)
	}
	if n.FD > 0 {
		unix.Close(n.FD)
	}
	n.files, n.FD = nil, 0
}

// withinNetwork calls f on a thread in a network namespace.
func withinNetwork(fd int, f func() error) (err error) {
	onThread(func() (back bool) {
		home, oerr := unix.Open(ownNetwork, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if oerr != nil {
			err = &os.PathError{Op: "open", Path: ownNetwork, Err: oerr}
			return true
		}
		defer unix.Close(home)
		if err = os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET)); err != nil {
			return true
		}
		err = f()
		return unix.Setns(home, unix.CLONE_NEWNET) == nil
	})
	return err
}
