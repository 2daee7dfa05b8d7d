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
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/logs"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
)

// createMonitored is create for a container that a monitor starts. Where ctx ends after the monitor has said that it has, the run is made and stays. It is an error all
// the same if its command has ended already and the monitor does not tell how: there is nothing to return then.
func (c *Container) createMonitored(a *attempt, stop bool) error {
	if stop {
		a.kept = true
		return fmt.Errorf("%w: a container with a monitor (WithMonitor) is started, not created", ErrUnsupported)
	}
	d := StateDir(a.spec.detach.dir)
	wish, again, err := d.wishOf(a)
	if err != nil {
		return err
	}
	if err := startMonitor(a.ctx, wish, again); err != nil {
		return err
	}
	r, p, err := d.follow(a.ctx, a.spec, c, false)
	if err != nil {
		return err
	}
	a.run, a.proc, a.iso = r, p, r.iso
	return nil
}

// wishOf returns what a monitor is to be handed: the container's options, or, of one that was made elsewhere, what was kept of them.
func (d StateDir) wishOf(a *attempt) (w []byte, again bool, err error) {
	if !a.spec.detach.loaded {
		if a.kept, err = a.before.discard(a.ctx); err != nil {
			return nil, false, err
		}
		w, err = formatWish(a.spec)
		return w, false, err
	}
	a.kept = true
	e, err := d.open(a.spec.id)
	if err != nil {
		return nil, false, err
	}
	defer e.Close()
	if err := d.settle(a.ctx, e); err != nil {
		return nil, false, err
	}
	if a.kept = false; a.before != nil {
		if err := a.before.close(); err != nil {
			return nil, false, err
		}
	}
	w, err = e.Wish()
	return w, true, err
}

// settle completes a container whose monitor has ended, so that it can be started again.
func (d StateDir) settle(ctx context.Context, e *state.Entry) error {
	if err := e.LockSoon(ctx, lastWords); err == nil { // others may be completing it
		e.Unlock()
	}
	_, err := d.recoverOne(ctx, e, nil)
	if err != nil {
		return err
	}
	rec, err := e.Read()
	if err != nil {
		return err
	}
	if rec.Phase != state.Stopped || monitorLives(rec) && !awaitProcess(rec.Monitor, lastWords) {
		return fmt.Errorf("%w: the container is %s", ErrState, rec.Phase)
	}
	return nil
}

// awaitProcess waits for the end of a recorded process.
func awaitProcess(p state.Process, patience time.Duration) bool {
	fd, err := findProcess(p)
	if fd < 0 {
		return err == nil
	}
	defer unix.Close(fd)
	return pollPidfd(fd, patience)
}

func (d StateDir) open(id string) (*state.Entry, error) {
	dir, err := state.Open(string(d), false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	defer dir.Close()
	return dir.Open(id)
}

// follow takes hold of the current run of a container that a monitor supervises. The result of one that has ended already is waited for,
// until ctx ends; with live such a run is an error at once.
func (d StateDir) follow(ctx context.Context, s *spec, c *Container, live bool) (*running, *Process, error) {
	e, err := d.open(s.id)
	if err != nil {
		return nil, nil, err
	}
	rec, err := e.Read()
	if err != nil {
		e.Close()
		return nil, nil, err
	}
	asOfLastRun(rec)
	iso, err := parseIsolation(rec.Isolation)
	if err != nil {
		e.Close()
		return nil, nil, err
	}
	r, err := resume(s, e, rec, nil)
	if err != nil {
		e.Close()
		return nil, nil, err
	}
	r.iso = iso
	if live && r.child.Pidfd < 0 {
		r.drop()
		e.Close()
		return nil, nil, errEnded
	}
	p, _, err := r.resumed(ctx, c, rec)
	if err != nil {
		e.Close()
		return nil, nil, err
	}
	return r, p, nil
}

// startMonitor starts a monitor's program and waits until it has started the container.
func startMonitor(ctx context.Context, wishes []byte, again bool) error {
	w, err := parseWish(wishes)
	if err != nil {
		return err
	}
	conn, err := spawnMonitor(&w.Monitor, wishes)
	if err != nil {
		return fmt.Errorf("monitor %s: %w", w.Monitor.Path, err)
	}
	defer conn.Close()
	r := request{Op: opStart}
	if again {
		r.Run = 1
	}
	stop := context.AfterFunc(ctx, func() { giveUp(conn) })
	defer stop()
	a, err := ask(context.WithoutCancel(ctx), conn, r)
	if !stop() {
		giveUp(conn)
		_, _ = io.Copy(io.Discard, conn) // until it has ended
		return endOf(ctx)
	}
	if err != nil {
		return fmt.Errorf("monitor %s: it does not answer; does its program call caisson.MonitorMain? %w", w.Monitor.Path, err)
	}
	if err := a.Error.from("start", w.Spec.id); err != nil {
		return err
	}
	_, err = conn.Write([]byte{1}) // taken note of
	return err
}

// giveUp tells a monitor that the start is not wanted any more. It then undoes it and ends, which is waited for.
func giveUp(conn net.Conn) {
	if u, ok := conn.(*net.UnixConn); ok {
		_ = u.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
}

// spawnMonitor executes the program in a session of its own, as nobody's child.
func spawnMonitor(m *Monitor, wishes []byte) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[1])
	ours := os.NewFile(uintptr(pair[0]), "monitor")
	defer ours.Close()
	fd, err := unix.MemfdCreate("caisson-wishes", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "wishes")
	defer file.Close()
	if _, err := file.Write(wishes); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := execMonitor(m, pair[1], fd); err != nil {
		return nil, err
	}
	return net.FileConn(ours)
}

// The descriptors with which a monitor begins, after the standard streams.
const monitorSocket, monitorWishes, monitorPlaces = 3, 4, 5

// execMonitor makes a process that executes the monitor's program, and returns when it has.
func execMonitor(m *Monitor, sock, file int) error {
	env := m.Env
	if env == nil {
		env = os.Environ()
	}
	env = append(slices.Clone(env), monitorEnv+"="+strconv.Itoa(monitorSocket)+","+strconv.Itoa(monitorWishes))
	p, err := monitorProgram(m, env)
	if err != nil {
		return err
	}
	child, err := stage.Start(stage.Config{Program: p, Cgroup: -1, Places: monitorPlaces, Files: map[string]int{"monitor socket": sock, "wishes": file}})
	if err != nil {
		return err
	}
	defer child.Conn.Close()
	_, err = child.Conn.Recv()
	stage.Reap(child.Pidfd)
	unix.Close(child.Pidfd)
	if err == io.EOF {
		err = nil
	}
	return err
}

func monitorProgram(m *Monitor, env []string) (*program.Program, error) {
	b := program.NewBuilder(false)
	b.Step("start a new", "session")
	b.Setsid()
	child := b.NewLabel()
	b.Step("make", "the monitor's process")
	b.JumpZero(b.Call(unix.SYS_CLONE, "clone", program.Named(unix.SIGCHLD, "SIGCHLD"), program.Int(0), program.Int(0), program.Int(0), program.Int(0)), child)
	b.ExitGroup(0)
	b.Mark(child)
	b.Step("execute the monitor", m.Path)
	b.Chdir("/")
	null := b.Openat(program.Cwd(), "/dev/null", unix.O_RDWR, 0)
	for i := range 3 {
		b.Dup3(null.Result(), i, 0)
	}
	b.Dup3(b.Input("monitor socket"), monitorSocket, 0)
	b.Dup3(b.Input("wishes"), monitorWishes, 0)
	b.CloseRange(monitorPlaces, unix.CLOSE_RANGE_CLOEXEC)
	b.Call(unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", program.Named(unix.SIG_SETMASK, "SIG_SETMASK"), program.Bytes(make([]byte, 8), "[]"), program.Null(), program.Int(8))
	b.Execve(m.Path, append([]string{m.Path}, m.Args...), env)
	return b.Build()
}

// ask sends a request and waits for the answer, at most until ctx ends. The error is that of ctx then.
func ask(ctx context.Context, conn net.Conn, r request) (a answer, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	buf := make([]byte, maxPacket)
	n := 0
	if _, err = conn.Write(b); err == nil {
		n, err = conn.Read(buf)
	}
	if !stop() { // also where the answer has come: the deadline may be set any moment
		err = ctx.Err()
	}
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(buf[:n], &a)
}

// dialMonitor connects to the container's monitor. The error is that of ctx where that ends before the monitor takes the connection.
func (r *running) dialMonitor(ctx context.Context) (net.Conn, error) {
	fd, err := r.det.entry.DialControl(ctx)
	if cerr := ctx.Err(); err != nil && cerr != nil {
		return nil, fmt.Errorf("the container's monitor does not answer: %w", cerr)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoMonitor, err)
	}
	f := os.NewFile(uintptr(fd), "monitor")
	defer f.Close()
	return net.FileConn(f)
}

// askMonitor asks the container's monitor. An error that matches errNoMonitor says that there is none.
func (r *running) askMonitor(ctx context.Context, q request) (answer, error) {
	conn, err := r.dialMonitor(ctx)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	a, err := ask(ctx, conn, q)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errNoMonitor, err)
	}
	if err == nil {
		err = a.Error.from(q.Op, r.spec.id)
	}
	return a, err
}

// followUntilClose is followEnd until the container is closed, which is context.Canceled then: the monitor may be one that does not answer.
func (r *running) followUntilClose(why Reason) (*Result, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.det.unfollow.Store(&cancel)
	if r.det.letGo.Load() {
		cancel()
	}
	return r.followEnd(ctx, why)
}

// followEnd completes the result of a run that a monitor supervises, or did until it was killed. The error is that of ctx where that ends
// before the monitor has answered.
func (r *running) followEnd(ctx context.Context, why Reason) (*Result, error) {
	run := r.det.run.number
	a, err := r.askMonitor(ctx, request{Op: opEnded, Run: run})
	if err == nil && a.Result != nil {
		return parseResult(a.Result)
	}
	if cerr := ctx.Err(); err != nil && cerr != nil {
		return &Result{ExitCode: -1}, &Error{Op: "wait", ID: r.spec.id, Err: cerr}
	}
	d := r.det
	awaitProcess(d.run.monitor, lastWords)
	rec, err := d.entry.Read()
	if err == nil && (rec.Run > run || rec.Run == run && rec.Phase != state.Running) {
		if rec.Result != nil && (rec.Run == run || rec.Run == run+1 && rec.Phase != state.Stopped) {
			return parseResult(rec.Result)
		}
		return &Result{ExitCode: -1}, &Error{Op: "wait", ID: r.spec.id, Err: ErrStatusUnknown}
	}
	return r.conclude(context.Background(), why)
}

// refollow takes hold of the next run, where there is one. The caller holds the lock, and the last run has ended. Nothing is waited for: of a
// run that has ended already the monitor may not tell for long.
func (c *Container) refollow() {
	if c.settled || c.run == nil || c.run.det == nil {
		return
	}
	rec, err := c.run.det.entry.Read()
	if err != nil {
		c.settled, c.between = errors.Is(err, ErrNotFound), false
		return
	}
	lives := monitorLives(rec)
	c.between = lives && rec.Phase != state.Stopped
	switch {
	case rec.Phase == state.Stopped || !lives:
		c.settled = true
	case rec.Phase == state.Running && rec.Run > c.run.det.run.number && !awaitProcess(rec.Init, 0):
		r, p, err := StateDir(c.spec.detach.dir).follow(context.Background(), c.spec, c, true)
		if err != nil {
			return
		}
		old := c.run
		c.run, c.proc, c.iso, c.state, c.between = r, p, r.iso, StateRunning, false
		_ = old.close()
	}
}

// waitFollowed waits until no further run comes.
func (c *Container) waitFollowed(ctx context.Context) (*Result, error) {
	for {
		p, r := c.Process(), c.lastRun()
		if r == nil {
			return p.Wait(ctx)
		}
		res, err := p.Wait(ctx)
		if err != nil && (ctx.Err() != nil || errors.Is(err, ErrClosed)) {
			return res, err
		}
		a, nerr := r.askMonitor(ctx, request{Op: opNext, Run: r.det.run.number})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if nerr == nil && !a.Final && c.State() == StateRunning && c.Process() != p {
			continue
		}
		if c.Process() != p { // it had followed meanwhile
			continue
		}
		c.mu.Lock()
		c.settled, c.between = true, false
		c.mu.Unlock()
		return res, err
	}
}

// lastRun is what the current or last run owns; nil if there was none.
func (c *Container) lastRun() *running {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

// stopFollowed is Stop by way of the monitor. An error that matches errNoMonitor says that there is none.
func (c *Container) stopFollowed(ctx context.Context, grace time.Duration) error {
	r := c.lastRun()
	if r == nil || r.det == nil {
		return errNoMonitor
	}
	_, err := r.askMonitor(ctx, request{Op: opStop, Grace: grace})
	if ctx.Err() != nil {
		r.haltSoon(context.Background(), endingPatience)
		return c.killFollowed(ctx)
	}
	if errors.Is(err, errNoMonitor) {
		r.haltSoon(ctx, lastWords) // others may be completing it
		if rec, rerr := r.det.entry.Read(); rerr == nil && rec.Phase != state.Stopped && monitorLives(rec) {
			return err // it could not be asked, as for want of a descriptor
		}
		if err := c.killFollowed(ctx); err != nil { // it ends with its monitor
			return err
		}
		if r := c.lastRun(); r != nil {
			r.haltSoon(ctx, lastWords) // who completed it is done
		}
		return nil
	}
	if err != nil {
		return err
	}
	_, err = c.waitFollowed(ctx)
	if errors.Is(err, ErrStatusUnknown) {
		err = nil
	}
	return err
}

// haltSoon is haltEntry for who cannot wait: a monitor that is stopped may hold the lock, or whoever sees to what one that is gone has left.
func (r *running) haltSoon(ctx context.Context, patience time.Duration) {
	r.det.changeSoon(ctx, patience, haltRecord)
}

// killedPatience is how long a monitor may take to tell of the end of a container that was killed.
var killedPatience = lastWords

// killFollowed kills a container that its monitor has not stopped before ctx ended, or whose monitor is gone. When ctx has ended, who does not tell of the end
// either is not waited for: a monitor that is stopped itself, or whoever has the lock of the record.
func (c *Container) killFollowed(ctx context.Context) error {
	p := c.Process()
	if err := p.kill(ReasonStopped); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	t := time.NewTimer(killedPatience)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
		return fmt.Errorf("the container was killed, and its monitor does not tell of its end: %w", ctx.Err())
	}
}

// signalFollowed is Signal by way of the monitor.
func (c *Container) signalFollowed(sig int) error {
	r := c.lastRun()
	if r == nil || r.det == nil {
		return errNoMonitor
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	_, err := r.askMonitor(ctx, request{Op: opSignal, Signal: sig, Run: r.det.run.number})
	return err
}

// healthFollowed asks the monitor what it has found.
func (c *Container) healthFollowed() Health {
	r := c.lastRun()
	if r == nil || r.det == nil {
		return Health{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	a, err := r.askMonitor(ctx, request{Op: opHealth})
	if err != nil || a.Health == nil {
		return Health{}
	}
	return *a.Health
}

// restartsFollowed reads how often the monitor has started the command again.
func (c *Container) restartsFollowed() int {
	r := c.lastRun()
	if r == nil || r.det == nil {
		return 0
	}
	rec, err := r.det.entry.Read()
	if err != nil {
		return 0
	}
	return rec.Restarts
}

// attachFollowed connects with the streams by way of the monitor.
func (r *running) attachFollowed(ctx context.Context, o AttachOptions) (*Attachment, error) {
	conn, err := r.dialMonitor(ctx)
	if err != nil {
		return nil, err
	}
	a, keys, err := newAttachment(o, &remote{conn: conn}, r.det.run.terminal)
	if err == nil {
		var got answer
		if got, err = ask(ctx, conn, request{Op: opAttach, Run: r.det.run.number, Stdout: o.Stdout != nil, Stderr: o.Stderr != nil}); err == nil {
			err = got.Error.from("attach", r.spec.id)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	go readRemote(conn, a)
	a.begin(keys)
	return a, nil
}

// remote is a monitor, for who is attached to its container.
type remote struct{ conn net.Conn }

func (m *remote) write(_ *Attachment, p []byte) error {
	_, err := packets{m.conn, packStdin}.Write(p)
	return err
}

func (m *remote) closeInput() error {
	_, err := m.conn.Write([]byte{packCloseInput})
	return err
}

func (m *remote) resize(rows, cols uint16) error {
	b := binary.BigEndian.AppendUint16([]byte{packResize}, rows)
	_, err := m.conn.Write(binary.BigEndian.AppendUint16(b, cols))
	return err
}

func (m *remote) leave(*Attachment) { m.conn.Close() }

// readRemote takes what a monitor sends to who is attached.
func readRemote(conn net.Conn, a *Attachment) {
	buf := make([]byte, maxPacket)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			a.end(fmt.Errorf("%w: %w", errNoMonitor, err))
			return
		}
		switch p := buf[1:n]; buf[0] {
		case packStdout:
			a.push(logs.Stdout, p)
		case packStderr:
			a.push(logs.Stderr, p)
		case packDropped:
			if len(p) == 8 {
				a.mu.Lock()
				a.dropped += binary.BigEndian.Uint64(p)
				a.mu.Unlock()
			}
		case packEnd:
			var got answer
			if err := json.Unmarshal(p, &got); err != nil {
				a.end(err)
			} else if err := got.Error.from("attach", ""); err != nil {
				a.end(err)
			}
			a.last()
			return
		}
	}
}

// revive starts the monitors again that are missing.
func (d StateDir) revive(ctx context.Context) (n int, err error) {
	err = d.each(ctx, func(e *state.Entry) error {
		rec, err := e.Read()
		if err != nil {
			return err
		}
		if e.Leftover(rec) || monitorLives(rec) || !toRevive(rec) {
			return nil
		}
		if err := d.settle(ctx, e); err != nil {
			return err
		}
		wish, err := e.Wish()
		if err == nil {
			err = startMonitor(ctx, wish, true)
		}
		if err == nil {
			n++
		}
		return err
	})
	return n, err
}

// toRevive reports whether a container is to run, of which no monitor takes care.
func toRevive(rec *state.Record) bool {
	if rec.Monitor.PID == 0 {
		return false
	}
	switch rec.Restart {
	case RestartAlways.String():
		return true
	case RestartUnlessStopped.String():
		return !rec.Halted
	case RestartOnFailure.String():
		return !rec.Halted && rec.Phase == state.Running
	}
	return false
}
