package caisson

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// monitorEnv tells a monitor the descriptors of its socket and of the file with the wishes.
const monitorEnv = "CAISSON_MONITOR"

func closeFd(fd int) { _ = unix.Close(fd) }

// monitorGC is the garbage that a monitor leaves lying, in percent of what it needs. A limit of memory would not do: a start takes
// more than what comes after it, and would be slowed down.
const monitorGC = 50

func monitorMain(opts []Option) {
	debug.SetGCPercent(monitorGC)
	conn, wishes, err := monitorInputs(os.Getenv(monitorEnv))
	if err != nil {
		fmt.Fprintf(os.Stderr, "caisson: this is a monitor of containers, which is started by WithMonitor: %v\n", err)
		os.Exit(2)
	}
	_ = os.Unsetenv(monitorEnv)
	if err := monitor(conn, wishes, opts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// monitorInputs takes over what the monitor was started with.
func monitorInputs(env string) (net.Conn, []byte, error) {
	a, b, _ := strings.Cut(env, ",")
	sock, err1 := strconv.Atoi(a)
	file, err2 := strconv.Atoi(b)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", monitorEnv, err)
	}
	unix.CloseOnExec(sock)
	unix.CloseOnExec(file)
	f := os.NewFile(uintptr(sock), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, nil, err
	}
	w := os.NewFile(uintptr(file), "wishes")
	defer w.Close()
	wishes, err := io.ReadAll(w)
	return conn, wishes, err
}

// monitor starts the container, answers who started it, and supervises the container to its end. A start that the other side
// gives up before it has taken note of the answer is undone:
//
//	host ── start ──▶ monitor
//	     ◀─ answer ──
//	     ── taken ──▶            end of file instead: undo
func monitor(conn net.Conn, wishes []byte, opts []Option) error {
	defer conn.Close()
	sup, err := prepareMonitor(conn, wishes, opts)
	if err != nil {
		return errors.Join(err, reply(conn, answer{Error: toWire(err)}))
	}
	defer sup.c.Close()
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	taken := make(chan bool, 1)
	go func() {
		n, err := conn.Read(make([]byte, 1))
		taken <- n == 1 && err == nil
		if err != nil || n == 0 {
			cancel()
		}
	}()
	_, err = sup.c.Start(ctx)
	if rerr := reply(conn, answer{Error: toWire(err)}); err != nil || rerr != nil {
		if err == nil {
			err = errors.Join(rerr, sup.undo())
		}
		return err
	}
	if !<-taken {
		return sup.undo()
	}
	conn.Close()
	return sup.serve(term)
}

// undo takes a start back.
func (sup *supervision) undo() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	err := sup.c.Stop(ctx, 0)
	if sup.again {
		return errors.Join(err, sup.finish(nil, false))
	}
	return errors.Join(err, sup.c.lastRun().erase(ctx))
}

// prepareMonitor makes the container of what was handed over.
func prepareMonitor(conn net.Conn, wishes []byte, opts []Option) (*supervision, error) {
	first, err := receive(conn)
	if err != nil {
		return nil, err
	}
	w, err := parseWish(wishes)
	if err != nil {
		return nil, err
	}
	sup := newSupervision(first.Run > 0, wishes)
	s := w.Spec
	s.detach.monitor, s.detach.sup = &w.Monitor, sup
	c, err := New(append([]Option{option(func(to *spec) { *to = s })}, opts...)...)
	if err != nil {
		return nil, err
	}
	sup.c = c
	return sup, nil
}

// serve supervises the container until no run follows.
func (sup *supervision) serve(term <-chan os.Signal) error {
	c := sup.c
	go func() {
		<-term
		_ = c.Stop(context.Background(), 10*time.Second)
	}()
	var conns sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go sup.accept(ctx, &conns)
	go sup.keepSmall(ctx)
	res, err := c.Wait(context.Background())
	ferr := sup.finish(res, false)
	if errors.Is(ferr, ErrNotFound) {
		ferr = nil // another program has removed it
	}
	sup.change(func() { sup.final, sup.running = true, false })
	sup.listener.Close()
	done := make(chan struct{})
	go func() { conns.Wait(); close(done) }()
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	if errors.Is(err, ErrStatusUnknown) || errors.Is(err, ErrStopped) {
		err = nil
	}
	return errors.Join(err, ferr)
}

// keepSmall gives back what a start took, after each, and what gathers in the long run.
func (sup *supervision) keepSmall(ctx context.Context) {
	for run := 0; ; {
		wait, cancel := context.WithTimeout(ctx, trimEvery)
		err := sup.await(wait, func() bool { return sup.running && sup.run > run })
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if resident() > trimAbove {
				trim()
			}
			continue
		}
		t := time.NewTimer(trimAfter)
		select {
		case <-t.C:
			trim()
		case <-ctx.Done():
			t.Stop()
			return
		}
		sup.mu.Lock()
		run = sup.run
		sup.mu.Unlock()
	}
}

// lastWords is how long a monitor whose container has ended waits for those who are told so.
const lastWords = 5 * time.Second

// maxConns is how many programs a monitor talks with at a time.
const maxConns = 64

func (sup *supervision) accept(ctx context.Context, conns *sync.WaitGroup) {
	room := make(chan struct{}, maxConns)
	for {
		room <- struct{}{}
		conn, err := sup.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			<-room
			time.Sleep(100 * time.Millisecond) // no descriptor is left, say
			continue
		}
		conns.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			if mayControl(conn) {
				sup.talk(ctx, conn)
			}
		})
	}
}

// mayControl reports whether the other side is the monitor's own user, or root.
func mayControl(conn net.Conn) bool {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cerr == nil && err == nil && (int(cred.Uid) == os.Geteuid() || cred.Uid == 0)
}

// requestTime is how long a monitor waits for what somebody wants who has connected.
const requestTime = 10 * time.Second

func receive(conn net.Conn) (request, error) {
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	_ = conn.SetReadDeadline(time.Time{})
	if err != nil {
		return request{}, err
	}
	return parseRequest(b[:n])
}

func reply(conn net.Conn, a answer) error {
	b, err := json.Marshal(a)
	if err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(requestTime))
		_, err = conn.Write(b)
	}
	return err
}

// talk answers one request.
func (sup *supervision) talk(ctx context.Context, conn net.Conn) {
	r, err := receive(conn)
	if err != nil {
		_ = reply(conn, answer{Error: toWire(err)})
		return
	}
	if r.Op == opAttach {
		sup.serveAttach(ctx, conn, r)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // who has asked may go away
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	a, err := sup.do(ctx, r)
	if err != nil {
		a = answer{Error: toWire(err)}
	}
	_ = reply(conn, a)
}

// do does what is wanted.
func (sup *supervision) do(ctx context.Context, r request) (a answer, err error) {
	c := sup.c
	switch r.Op {
	case opStop:
		return a, sup.halt(ctx, func() error { return c.Stop(ctx, r.Grace) })
	case opSignal:
		sig := syscall.Signal(r.Signal)
		if err := sup.awaitRun(ctx, r.Run); err != nil {
			return a, err
		}
		if sig == unix.SIGKILL || sig == c.spec.stopSignal {
			return a, sup.halt(ctx, func() error { return c.Signal(sig) })
		}
		return a, c.Signal(sig)
	case opHealth:
		h := c.Health()
		return answer{Health: &h}, nil
	case opEnded:
		err = sup.await(ctx, func() bool {
			a.Result = sup.results[r.Run]
			return a.Result != nil || sup.run > r.Run || sup.final
		})
		return a, err
	case opNext:
		err = sup.await(ctx, func() bool {
			a.Run, a.Final = sup.run, sup.final
			return sup.final || sup.running && sup.run > r.Run
		})
		return a, err
	}
	return a, fmt.Errorf("%w: %q", ErrInvalid, r.Op)
}

// packets makes packets of what is written.
type packets struct {
	conn net.Conn
	kind byte
}

func (p packets) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		piece := b[:min(len(b), maxPacket-1)]
		if _, err := p.conn.Write(append([]byte{p.kind}, piece...)); err != nil {
			return n, err
		}
		n, b = n+len(piece), b[len(piece):]
	}
	return n, nil
}

// serveAttach connects a program with the container's streams.
func (sup *supervision) serveAttach(ctx context.Context, conn net.Conn, r request) {
	in, input := io.Pipe()
	o := AttachOptions{Stdin: in, DetachKeys: "none"}
	if r.Stdout {
		o.Stdout = packets{conn, packStdout}
	}
	if r.Stderr {
		o.Stderr = packets{conn, packStderr}
	}
	var a *Attachment
	err := sup.awaitRun(ctx, r.Run)
	if err == nil {
		a, err = sup.c.Attach(ctx, o)
	}
	if reply(conn, answer{Error: toWire(err)}) != nil || err != nil {
		if a != nil {
			a.Close()
		}
		return
	}
	_ = conn.SetWriteDeadline(time.Time{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer a.Close()
		defer input.Close()
		sup.readPackets(conn, a, input)
	})
	err = a.Wait(ctx)
	_ = in.CloseWithError(ErrDetached) // wakes who writes
	if d := a.Dropped(); d > 0 {
		_, _ = conn.Write(binary.BigEndian.AppendUint64([]byte{packDropped}, d))
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestTime))
	b, _ := json.Marshal(answer{Error: toWire(err)})
	_, _ = conn.Write(append([]byte{packEnd}, b...))
	conn.Close()
	reading.Wait()
}

// readPackets takes what a program sends that is attached.
func (sup *supervision) readPackets(conn net.Conn, a *Attachment, input io.Writer) {
	buf := make([]byte, maxPacket)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		switch p := buf[1:n]; buf[0] {
		case packStdin:
			if _, err := input.Write(p); err != nil {
				return
			}
		case packResize:
			if len(p) == 4 {
				_ = a.Resize(binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]))
			}
		case packCloseInput:
			_ = a.from.closeInput()
		default:
			return
		}
	}
}
