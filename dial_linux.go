package caisson

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// dial connects to the first address that answers.
func (r *running) dial(ctx context.Context, all []sockAddress) (conn net.Conn, err error) {
	for _, a := range all {
		conn, err = withSocket(r, ctx, "dial", &a, (*visit).connect, net.FileConn)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
	return nil, err
}

// listen listens on the first address whose family there is.
func (r *running) listen(ctx context.Context, all []sockAddress) (l net.Listener, err error) {
	for _, a := range all {
		l, err = withSocket(r, ctx, "listen", &a, (*visit).bind, net.FileListener)
		if err == nil || !noFamily(err) {
			return l, err
		}
	}
	return nil, err
}

func (r *running) listenPacket(ctx context.Context, all []sockAddress) (l net.PacketConn, err error) {
	for _, a := range all {
		l, err = withSocket(r, ctx, "listen", &a, (*visit).bind, net.FilePacketConn)
		if err == nil || !noFamily(err) {
			return l, err
		}
	}
	return nil, err
}

// noFamily says that the container's network does not have the protocol.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// withSocket has a visit make a socket and takes it over.
func withSocket[T any](r *running, ctx context.Context, op string, a *sockAddress, use func(*visit, *sockAddress, program.OpRef, program.Arg), take func(*os.File) (T, error)) (T, error) {
	var none T
	kinds := uint64(unix.CLONE_NEWNET)
	path := a.unix() && !a.abstract()
	if path {
		kinds |= unix.CLONE_NEWNS
	}
	var fds program.Arg
	fd, err := r.visit(ctx, visiting{kinds: kinds, before: func(v *visit) {
		if path {
			fds = ownFDs(v)
		}
	}, inside: func(v *visit) {
		s := v.socket(a)
		use(v, a, s, fds)
		v.Step("pass", "the socket")
		v.pass(s)
	}})
	if err != nil {
		return none, &net.OpError{Op: op, Net: a.network, Addr: a.addr(), Err: netError(err)}
	}
	if len(fd) != 1 {
		closeAll(fd)
		return none, &net.OpError{Op: op, Net: a.network, Addr: a.addr(), Err: errors.New("no socket came out of the container")}
	}
	f := os.NewFile(uintptr(fd[0]), "socket")
	defer f.Close()
	return take(f) // has a copy of its own
}

// The steps about the socket itself.
const (
	socketStep  = "make a socket for"
	connectStep = "connect to"
	bindStep    = "bind to"
)

// netError makes the failure of a system call on the socket what it is in package net. Of others the step is told.
func netError(err error) error {
	var se *StepError
	if errors.As(err, &se) && se.Syscall != "" && (se.Step == socketStep || se.Step == connectStep || se.Step == bindStep) {
		return &os.SyscallError{Syscall: se.Syscall, Err: se.Err}
	}
	return err
}

// socket makes the socket.
func (v *visit) socket(a *sockAddress) program.OpRef {
	domain, typ := unix.AF_UNIX, unix.SOCK_STREAM
	switch {
	case a.kind == "unixpacket":
		typ = unix.SOCK_SEQPACKET
	case a.datagram():
		typ = unix.SOCK_DGRAM
	}
	if !a.unix() {
		if domain = unix.AF_INET6; a.ip.Addr().Is4() {
			domain = unix.AF_INET
		}
	}
	v.Step(socketStep, a.addr().String())
	return v.Call(unix.SYS_SOCKET, "socket", program.Named(domain, domainNames[domain]), program.Named(typ|unix.SOCK_CLOEXEC, typeNames[typ]+"|SOCK_CLOEXEC"), program.Int(0))
}

var (
	domainNames = map[int]string{unix.AF_UNIX: "AF_UNIX", unix.AF_INET: "AF_INET", unix.AF_INET6: "AF_INET6"}
	typeNames   = map[int]string{unix.SOCK_STREAM: "SOCK_STREAM", unix.SOCK_DGRAM: "SOCK_DGRAM", unix.SOCK_SEQPACKET: "SOCK_SEQPACKET"}
)

// socketPlace is a descriptor number at which a visit puts a file to name it.
const socketPlace = 1000

// connect connects. A path is opened first, without the links of procfs, and what was opened is connected to, by its name in a
// procfs that is not the container's: a link inside could otherwise lead a visit, which may be more privileged than any process
// of the container, to a socket elsewhere.
func (v *visit) connect(a *sockAddress, s program.OpRef, fds program.Arg) {
	v.Step(connectStep, a.addr().String())
	name := a.path
	if a.unix() && !a.abstract() {
		file := v.plan.OpenPath(v.Builder, a.path, 0)
		v.Dup3(file.Result(), socketPlace, unix.O_CLOEXEC)
		v.Fchdir(fds)
		name = strconv.Itoa(socketPlace)
	}
	v.Call(unix.SYS_CONNECT, "connect", append([]program.Arg{s.Result()}, sockaddr(a, name)...)...)
	if a.kind == "tcp" { // as package net does
		v.setsockopt(s, unix.IPPROTO_TCP, "IPPROTO_TCP", unix.TCP_NODELAY, "TCP_NODELAY", 1)
	}
}

// bind takes the address, and listens where there are connections. Of a path the directory is opened, so that only the last
// name, which must be new, is looked up by the kernel.
func (v *visit) bind(a *sockAddress, s program.OpRef, _ program.Arg) {
	v.Step(bindStep, a.addr().String())
	name := a.path
	if a.unix() && !a.abstract() {
		v.Fchdir(v.plan.OpenDir(v.Builder, path.Dir(a.path)))
		name = lastName(a.path)
	}
	if a.kind == "tcp" {
		v.setsockopt(s, unix.SOL_SOCKET, "SOL_SOCKET", unix.SO_REUSEADDR, "SO_REUSEADDR", 1)
	}
	if !a.unix() && a.ip.Addr().Is6() {
		only := 1
		if a.both {
			only = 0
		}
		v.setsockopt(s, unix.IPPROTO_IPV6, "IPPROTO_IPV6", unix.IPV6_V6ONLY, "IPV6_V6ONLY", only)
	}
	v.Call(unix.SYS_BIND, "bind", append([]program.Arg{s.Result()}, sockaddr(a, name)...)...)
	if !a.datagram() {
		v.Call(unix.SYS_LISTEN, "listen", s.Result(), program.Int(unix.SOMAXCONN))
	}
}

func (v *visit) setsockopt(s program.OpRef, level int, levelName string, option int, name string, value int) {
	b := binary.NativeEndian.AppendUint32(nil, uint32(value))
	v.Call(unix.SYS_SETSOCKOPT, "setsockopt", s.Result(), program.Named(level, levelName), program.Named(option, name),
		program.Bytes(b, "["+strconv.Itoa(value)+"]"), program.Int(4))
}

// sockaddr is the address as the kernel takes it, and its size. name is that of a Unix socket.
func sockaddr(a *sockAddress, name string) []program.Arg {
	ne := binary.NativeEndian
	var b []byte
	switch {
	case a.abstract():
		b = append(ne.AppendUint16(nil, unix.AF_UNIX), 0)
		b = append(b, name[1:]...)
	case a.unix():
		b = append(append(ne.AppendUint16(nil, unix.AF_UNIX), name...), 0)
	case a.ip.Addr().Is4():
		b = binary.BigEndian.AppendUint16(ne.AppendUint16(nil, unix.AF_INET), a.ip.Port())
		b = append(append(b, a.ip.Addr().AsSlice()...), make([]byte, 8)...)
	default:
		b = binary.BigEndian.AppendUint16(ne.AppendUint16(nil, unix.AF_INET6), a.ip.Port())
		b = append(append(b, 0, 0, 0, 0), a.ip.Addr().AsSlice()...)
		zone, _ := strconv.ParseUint(a.ip.Addr().Zone(), 10, 32)
		b = ne.AppendUint32(b, uint32(zone))
	}
	return []program.Arg{program.Bytes(b, "{"+strconv.Quote(a.addr().String())+"}"), program.Int(len(b))}
}
