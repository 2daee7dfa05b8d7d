package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// What an ordinary user cannot do on a thread of this program, for it would have to enter a user namespace, a process of the stage's kind
// does: it enters, opens one thing, passes it out and ends. What is left to do with a socket (bind, listen, connect) is done here: the kernel asks
// for capabilities in the user namespace that owns the socket's network namespace, and who made that has them all (user_namespaces(7)).

// passed marks the descriptor that such a process passes out.
const passed = 1

// Names of the files that it is given.
const (
	userInput = "user namespace"
	netInput  = "network namespace"
)

// orBySocket enters by Do, and falls back to what needs no entering.
func (n *Namespace) orBySocket(f, other func() error) error {
	err := n.Do(f)
	var e *Error
	if errors.As(err, &e) && e.Op == enterOp && errors.Is(err, unix.EPERM) {
		if oerr := other(); !errors.Is(oerr, errNotOwner) {
			return oerr
		}
	}
	return err
}

// errNotOwner: the caller did not make the user namespace that owns the network namespace.
var errNotOwner = errors.New("the user namespace that owns it is not the caller's")

// socket opens a socket inside by another process.
func (n *Namespace) socket(ctx context.Context, domain, kind, protocol int) (int, error) {
	defer runtime.KeepAlive(n)
	user, err := unix.IoctlRetInt(int(n.file.Fd()), unix.NS_GET_USERNS)
	if err == unix.EPERM {
		return -1, errNotOwner
	}
	if err != nil {
		return -1, os.NewSyscallError("ioctl NS_GET_USERNS", err)
	}
	defer unix.Close(user)
	unix.CloseOnExec(user)
	b := program.NewBuilder(false)
	nameStage(b)
	b.Step("enter", userInput)
	b.Setns(b.Input(userInput), unix.CLONE_NEWUSER)
	b.Step("close", "the memory to others")
	b.Prctl(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE", program.Int(0))
	b.Step("enter", netInput)
	b.Setns(b.Input(netInput), unix.CLONE_NEWNET)
	b.Step("open", "a socket")
	s := b.Call(unix.SYS_SOCKET, "socket", program.Int(domain), program.Int(kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), program.Int(protocol))
	passOut(b, s)
	fd, err := fetch(ctx, b, stage.Config{Files: map[string]int{userInput: user, netInput: int(n.file.Fd())}, Cgroup: -1})
	var step *program.StepError
	if errors.As(err, &step) && step.Step == "open" {
		return -1, os.NewSyscallError("socket", step.Errno)
	}
	if errors.As(err, &step) && step.Errno == unix.EPERM {
		return -1, errNotOwner
	}
	return fd, err
}

// withSocket calls f with a socket that is inside.
func (n *Namespace) withSocket(f func(int) error) error {
	s, err := n.socket(context.Background(), unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return f(s)
}

// newRootless makes a network namespace in a user namespace of its own, in which the caller's ids are those of root.
func newRootless() (*Namespace, error) {
	b := program.NewBuilder(false)
	nameStage(b)
	b.Step("raise", "loopback device")
	s := b.Call(unix.SYS_SOCKET, "socket", program.Named(unix.AF_INET, "AF_INET"), program.Named(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"), program.Int(0))
	ifr := make([]byte, 40)
	copy(ifr, "lo")
	binary.NativeEndian.PutUint16(ifr[16:], unix.IFF_UP|unix.IFF_RUNNING)
	b.Ioctl(s.Result(), unix.SIOCSIFFLAGS, "SIOCSIFFLAGS", program.Bytes(ifr, `{ifr_name="lo", ifr_flags=IFF_UP|IFF_RUNNING}`))
	b.Step("open", netInput)
	passOut(b, b.Openat(program.Cwd(), "/proc/self/ns/net", unix.O_RDONLY, 0))
	own := func(id int) string { return "0 " + strconv.Itoa(id) + " 1" }
	fd, err := fetch(context.Background(), b, stage.Config{Namespaces: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UIDMap: own(os.Geteuid()), GIDMap: own(os.Getegid()), Cgroup: -1})
	if err != nil {
		return nil, err
	}
	return &Namespace{os.NewFile(uintptr(fd), "network namespace of a user namespace")}, nil
}

func nameStage(b *program.Builder) {
	const name = "caisson-net"
	b.Step("name", "the process")
	b.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte(name+"\x00"), strconv.Quote(name)))
}

func passOut(b *program.Builder, fd program.OpRef) {
	b.Step("pass", "it out")
	stage.EmitPass(b, passed, fd)
	b.ExitGroup(0)
}

// fetch has a process perform the program, and takes what it passes out. It does not wait for anything, so that it ends by itself also when this
// program does.
func fetch(ctx context.Context, b *program.Builder, c stage.Config) (int, error) {
	err := ctx.Err()
	if err != nil {
		return -1, context.Cause(ctx)
	}
	if c.Program, err = b.Build(); err != nil {
		return -1, err
	}
	child, err := stage.Start(c)
	if err != nil {
		return -1, err
	}
	defer unix.Close(child.Pidfd)
	defer child.Conn.Close()
	shut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(shut)
		_ = unix.Shutdown(child.Conn.Fd(), unix.SHUT_RDWR)
	})
	msg, err := child.Conn.Recv()
	ended := !stop()
	if ended {
		<-shut // before the descriptor's number can be another's
	}
	child.Kill()
	switch {
	case err == nil && msg.FD >= 0:
		return msg.FD, nil
	case ended:
		return -1, context.Cause(ctx)
	case err == nil:
		return -1, unix.EMFILE // it came, and there was no room for it
	}
	return -1, fmt.Errorf("by a process of its own: %w", err)
}
