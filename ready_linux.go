package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/rootfs"
)

// handing lets a container get its streams while somebody already waits for its end.
type handing struct {
	mu   sync.Mutex
	over bool
}

// last returns the streams at the end of the process.
func (h *handing) last(r *running) *streams {
	h.mu.Lock()
	h.over = true
	s := r.streams
	h.mu.Unlock()
	if s.begun != nil {
		<-s.begun
	}
	return s
}

// give sets the streams; false says that the process has ended.
func (h *handing) give(r *running, s *streams) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		r.streams = s
	}
	return !h.over
}

// makeReady makes a container that waits for its command. Nobody attends to its process until it is taken or discarded.
func (c *Container) makeReady(ctx context.Context) error {
	a, err := c.begin(ctx, "fill pool", c.spec, StateNew)
	if err != nil {
		return err
	}
	a.attend, a.ready = true, true
	err = c.create(a, true)
	if err == nil {
		a.run.settle()
		err = a.run.noteSetUp()
	}
	if err != nil && a.run != nil {
		err = errors.Join(err, a.run.discardReady())
	}
	_, err = c.finish(a, StateCreated, err)
	c.mu.Lock()
	c.ready, c.had = err == nil, [2]int{len(c.spec.files), len(c.spec.trees)}
	c.mu.Unlock()
	return err
}

// noteSetUp notes the CPU time that the set-up has taken, which is not the command's.
func (r *running) noteSetUp() error {
	if r.group == nil {
		return nil
	}
	st, err := r.group.StatsOf(cgroups.CPUAcct)
	if err != nil {
		return err
	}
	r.setUp = st.CPU.Usage.Or(0)
	return nil
}

// discardReady ends a container that was made ready and could not be used.
func (r *running) discardReady() error {
	err := r.proc.kill(ReasonStopped)
	r.proc.attend()
	return errors.Join(err, r.close())
}

// alive reports whether the process of a container that is ready still waits.
func (c *Container) alive() bool { return !c.run.pidfd.Ended() }

// take makes a container that is ready the one that s describes. With attend the caller attends to its process.
func (c *Container) take(s *spec, attend bool) {
	c.spec, c.run.spec = s, s
	if c.run.attend = attend; !attend {
		go c.proc.attend()
	}
}

// releaseReady gives a container of a pool its command and lets it execute that.
func (c *Container) releaseReady(a *attempt) error {
	began := time.Now()
	r, p := a.run, a.proc
	defer func() { r.undo.add(a.pipes.started()) }()
	x := &running{spec: a.spec, owner: c, cgroup: -1, maps: r.maps, files: map[string]int{}, fds: map[string]int{}}
	err := x.prepareRest(a.ctx, r)
	if err != nil {
		return errors.Join(err, x.close()) // it is as ready as before
	}
	r.undo, r.m.user, r.allCaps = append(r.undo, x.undo...), x.m.user, r.allCaps|x.m.caps
	x.streams.begun = make(chan struct{})
	if !r.handing.give(r, x.streams) {
		x.streams.abort()
		return r.lostReady(p)
	}
	stopWatch := context.AfterFunc(a.ctx, func() { _ = p.kill(ReasonCanceled) })
	p.beginsAt(began) // before it can have ended
	err = r.converse(a.ctx, x)
	if err == io.EOF {
		r.startStreams(p)
		close(x.streams.begun)
		err = r.released(p, func() {})
	} else {
		x.streams.abort()
		close(x.streams.begun)
	}
	if !stopWatch() {
		err = endOf(a.ctx)
	}
	if err != nil {
		_ = p.kill(ReasonStopped)
		p.attend()
		<-p.done
		return r.explainFailure(err)
	}
	r.announce(p.pid)
	a.iso = mergeMeasures(a.iso, x.iso)
	r.watchContext(a.spec.process.ctx, p)
	r.clock(p, began)
	return r.hooksStarted(a.ctx, p, func() {})
}

// lostReady is the error for a container that has ended before it got its command.
func (r *running) lostReady(p *Process) error {
	p.attend()
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason == ReasonStopped {
		return ErrStopped
	}
	return &DiedError{Result: p.result}
}

// mergeMeasures replaces measures by those of the same name.
func mergeMeasures(old, by Isolation) Isolation {
	out := slices.DeleteFunc(slices.Clone(old), func(m Measure) bool { _, ok := by.Get(m.Name); return ok })
	return append(out, by...)
}

// prepareRest makes the second part of the program.
func (x *running) prepareRest(ctx context.Context, r *running) error {
	s := x.spec
	x.env = rootfs.Env{Features: rootfs.Probe()}
	x.m = &machine{rest: true, create: true, userns: r.m.userns, ignored: r.m.ignored, null: s.nullStreams(), openat2: x.env.Features.Openat2,
		rlimits: rlimits(&s.process), console: r.m.console}
	if err := x.userOf(r); err != nil {
		return err
	}
	if err := errors.Join(x.capabilities(), x.landlock(s.process.landlock)); err != nil {
		return err
	}
	if r.group == nil {
		x.limitEachCPU()
		r.m.cpuSeconds = x.m.cpuSeconds
	}
	if err := x.stdio(); err != nil {
		return err
	}
	if err := x.packFiles(ctx); err != nil {
		return err
	}
	for name := range x.fds {
		x.m.sent = append(x.m.sent, name)
	}
	slices.Sort(x.m.sent)
	if n := len(x.m.sent); n > stage.MaxSent || 3+len(s.process.extraFiles) >= r.child.Conn.Places() {
		return invalid("WithExtraFiles", "%d files; a container of a pool can be given at most %d", n, min(stage.MaxSent, r.child.Conn.Places()-4))
	}
	if err := x.compile(); err != nil || testHookRest == nil {
		return err
	}
	x.prog = testHookRest(x.prog)
	return nil
}

// testHookRest lets tests change the second part of a program.
var testHookRest func(*program.Program) *program.Program

// converse sends the second part and follows it until the command has been executed.
func (r *running) converse(ctx context.Context, x *running) error {
	fds := make([]int, len(x.m.sent))
	for i, name := range x.m.sent {
		fds[i] = x.fds[name]
	}
	err := r.child.Conn.SendNext(x.prog, fds...)
	x.streams.closeChild()
	if errors.Is(err, stage.ErrNextTooLong) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err != nil {
		return err
	}
	err = r.receive(ctx)
	r.child.Conn.Close()
	return err
}

// packedFiles is the input that holds the contents of several files.
const packedFiles = "files"

// inlineFile is the size up to which a file's content is part of the program.
const inlineFile = 4 << 10

// packFiles puts together the files that are given at the release. Larger contents go into memory that is passed on.
func (x *running) packFiles(ctx context.Context) error {
	s := x.spec
	with, trees := *s, s.trees[x.owner.had[1]:]
	x.spec = &with
	with.files, with.trees = slices.Clone(s.files[x.owner.had[0]:]), nil
	if len(with.files)+len(trees) == 0 {
		return nil
	}
	budget := int64(maxTreeBytes)
	for _, t := range trees {
		more, err := treeFiles(ctx, t, &budget)
		if err != nil {
			return &OptionError{"WithFS", err}
		}
		with.files = append(with.files, more...)
	}
	l := rootfs.Layout{Root: &rootfs.Description{Kind: rootfs.KindComposed}, Files: with.files} // of the root only the files matter
	if err := l.Validate(); err != nil {
		return err
	}
	var pack *os.File
	end := int64(0)
	for i := range with.files {
		f := &with.files[i]
		switch {
		case f.Content != nil:
			x.fds[contentName(i)] = int(f.Content.Fd())
		case len(f.Data) > inlineFile:
			if pack == nil {
				fd, err := unix.MemfdCreate("files", unix.MFD_CLOEXEC)
				if err != nil {
					return nil // as parts of the program they arrive too
				}
				pack = os.NewFile(uintptr(fd), packedFiles)
				x.undo.add(pack.Close)
				x.fds[packedFiles] = fd
			}
			if _, err := pack.WriteAt(f.Data, end); err != nil {
				return err
			}
			f.Content, f.Offset, f.Size, f.Data = pack, end, int64(len(f.Data)), nil
			end += f.Size
			x.m.packed = append(x.m.packed, contentName(i))
		}
	}
	return nil
}

func contentName(i int) string { return fmt.Sprintf("content %d", i) }
