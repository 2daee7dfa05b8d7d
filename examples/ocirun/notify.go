package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

// With NOTIFY_SOCKET (sd_notify(3)) in its environment a container gets a socket of its own, on which ocirun listens: of what the
// container says, READY=1 alone goes on to the service manager, and MAINPID= comes from here. The manager would believe
// everything that is said on its own socket.
//
//	create:     .notify/ID below --root is shown at /run/notify, read-only; nobody listens, since nothing runs
//	start, run: the socket is made in it, and listened on until the container is ready, or has ended
//	delete:     the directory goes with the container
const (
	notifyInside = "/run/notify"
	notifyName   = "notify.sock"
	// maxNotify bounds a datagram of the container: what is longer is cut off, as by other runtimes.
	maxNotify = 4096
	// barrierPatience bounds the wait until the service manager has read what it was told.
	barrierPatience = 5 * time.Second
	// lastWords is how long after a container's end what it said is still waited for: it is there, and needs to be read only.
	lastWords = 100 * time.Millisecond
)

// managerSocket is the service manager's socket: a path, or @ and an abstract name.
func managerSocket() string {
	if s := os.Getenv("NOTIFY_SOCKET"); filepath.IsAbs(s) || strings.HasPrefix(s, "@") && len(s) > 1 {
		return s
	}
	return ""
}

// notifyDir is the directory of a container's socket. No container has an id that begins with a dot.
func (g *global) notifyDir(id string) string { return filepath.Join(g.root, ".notify", id) }

// notifyOption makes the directory of the socket, if there is a service manager, and shows it to the container.
func (g *global) notifyOption(id string) (caisson.Option, error) {
	if managerSocket() == "" {
		return nil, nil
	}
	if !hasNotifyDir(id) {
		return nil, nil // no id, as New will say
	}
	if err := ownDir(g.root); err != nil {
		return nil, err
	}
	if err := g.makeNotifyDir(id); err != nil {
		return nil, err
	}
	if err := os.Chmod(g.notifyDir(id), 0o755); err != nil { // for those in the container
		return nil, err
	}
	m := rootfs.ReadOnlyBindMount(g.notifyDir(id), notifyInside)
	m.SetAll |= rootfs.NoExec
	return caisson.Options(caisson.WithMount(m), caisson.WithEnv("NOTIFY_SOCKET="+notifyInside+"/"+notifyName)), nil
}

// hasNotifyDir is false for what is no id, and might name another directory.
func hasNotifyDir(id string) bool {
	return id != "" && !strings.HasPrefix(id, ".") && !strings.ContainsRune(id, '/')
}

// makeNotifyDir makes the directory, and the one that it shares with those of others, who may just be removing that.
func (g *global) makeNotifyDir(id string) (err error) {
	for range 3 {
		if err = ownDir(filepath.Dir(g.notifyDir(id))); err == nil {
			err = ownDir(g.notifyDir(id))
		}
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return err
}

// ownDir makes a directory, or finds one that is the caller's alone.
func ownDir(path string) error {
	if err := os.Mkdir(path, 0o700); err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: not a directory that user %d alone can write to", path, os.Geteuid())
	}
	return nil
}

// forgetNotify removes the directory of a container that is gone.
func (g *global) forgetNotify(id string) {
	if !hasNotifyDir(id) {
		return
	}
	_ = os.Remove(filepath.Join(g.notifyDir(id), notifyName))
	_ = os.Remove(g.notifyDir(id))
	_ = os.Remove(filepath.Dir(g.notifyDir(id))) // unless others have theirs there
}

// forgetFailed is forgetNotify for a container that could not be made. One that is there already keeps what is its own.
func (g *global) forgetFailed(id string, err error) {
	if err != nil && !errors.Is(err, caisson.ErrExists) {
		g.forgetNotify(id)
	}
}

// notifier passes a container's readiness on.
type notifier struct {
	in    *net.UnixConn
	ready chan struct{} // closed when the container has said that it is
}

// notifier listens for a container that was made with a socket; nil if it was not, or there is no service manager.
func (g *global) notifier(id string) (*notifier, error) {
	if managerSocket() == "" {
		return nil, nil
	}
	dir, err := os.Open(g.notifyDir(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), notifyName) // a socket's address may have 108 bytes
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	in, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET of the container: %w", err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // all users in the container may; nobody else comes here
		in.Close()
		return nil, err
	}
	n := &notifier{in: in, ready: make(chan struct{})}
	go n.listen()
	return n, nil
}

// notifierFor listens for a container that is about to run. It is created first, so that one of the same id keeps its socket. What goes
// on from a checkpoint has been ready before.
func (g *global) notifierFor(ctx context.Context, c *caisson.Container, w *wish) (*notifier, error) {
	if managerSocket() == "" || w.restore != nil {
		return nil, nil
	}
	if _, err := c.Create(ctx); err != nil {
		g.forgetFailed(c.ID(), err)
		return nil, err
	}
	n, err := g.notifier(c.ID())
	return n, g.orRemove(ctx, c, err)
}

// listen reads what the container says, to the end. Descriptors that come with it are closed by the kernel, which answers barriers.
func (n *notifier) listen() {
	buf, said := make([]byte, maxNotify), false
	for {
		size, err := n.in.Read(buf)
		if err != nil {
			return
		}
		if !said && saysReady(buf[:size]) {
			said = true
			close(n.ready)
		}
	}
}

// saysReady looks for a line of its own.
func saysReady(datagram []byte) bool {
	for line := range bytes.SplitSeq(datagram, []byte{'\n'}) {
		if string(line) == "READY=1" {
			return true
		}
	}
	return false
}

// pass waits until the container is ready, and tells the service manager, with mainPID unless that is zero. It returns also when the
// container has ended, and at once for nil.
func (n *notifier) pass(ctx context.Context, p *caisson.Process, mainPID int) error {
	if n == nil {
		return nil
	}
	select {
	case <-n.ready:
	case <-p.Done():
		select { // what it said last may not have been read yet
		case <-n.ready:
		case <-time.After(lastWords):
			return nil
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return tellReady(managerSocket(), mainPID)
}

// close stops listening. It is nothing for nil.
func (n *notifier) close() {
	if n != nil {
		n.in.Close()
	}
}

// tellReady tells the service manager, and waits until it has read that: it looks who has sent it, who must not be gone by then.
func tellReady(socket string, mainPID int) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer c.Close()
	text := "READY=1\n"
	if mainPID > 0 {
		text = "MAINPID=" + strconv.Itoa(mainPID) + "\n" + text
	}
	if err := c.SetWriteDeadline(time.Now().Add(barrierPatience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return barrier(c)
}

// barrier sends the end of a pipe, which the receiver closes when it has come so far (sd_notify_barrier(3)).
func barrier(c *net.UnixConn) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	rights := unix.UnixRights(int(w.Fd()))
	raw, err := c.SyscallConn()
	if err == nil {
		werr := raw.Write(func(fd uintptr) bool {
			err = unix.Sendmsg(int(fd), []byte("BARRIER=1"), rights, nil, 0)
			return err != unix.EAGAIN
		})
		err = errors.Join(werr, err)
	}
	w.Close()
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	if err := r.SetReadDeadline(time.Now().Add(barrierPatience)); err != nil {
		return err
	}
	_, _ = r.Read(make([]byte, 1)) // a manager that knows no barriers has been given its time
	return nil
}
