package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// listen makes a socket below a short name, since socket addresses are.
func (t *trial) listen(name string) (fd int, path string) {
	path = filepath.Join(t.dir, name)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	t.must(err)
	t.undo = append(t.undo, func() { _ = unix.Close(fd) })
	t.must(unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	t.must(unix.Listen(fd, 8))
	t.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	return fd, path
}

// receive accepts a connection and reads it to its end.
func (t *trial) receive(listener int) (text string, fds []int) {
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	t.must(err)
	defer unix.Close(conn)
	t.must(unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, m, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil || n <= 0 {
			return text, fds
		}
		text += string(buf[:n])
		msgs, _ := unix.ParseSocketControlMessage(oob[:m])
		for i := range msgs {
			if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
}

// onTerminal is report for a process with a terminal.
func (t *trial) onTerminal(asked ...string) *report {
	t.spec.Process.Args = append([]string{"/probe", "report"}, asked...)
	t.write()
	t.made = append(t.made, t.id)
	listener, path := t.listen("s")
	t.ok("create", "--bundle", t.bundle(), "--console-socket", path, t.id)
	_, fds := t.receive(listener)
	if len(fds) != 1 {
		t.failf("%d descriptors came over the console socket", len(fds))
	}
	tty := os.NewFile(uintptr(fds[0]), "terminal")
	defer tty.Close()
	t.ok("start", t.id)
	line, err := bufio.NewReaderSize(tty, 1<<20).ReadString('\n')
	if err != nil {
		t.failf("terminal: %q, %v", line, err)
	}
	return t.parse(said{out: strings.TrimSpace(line)})
}
