package caisson

import (
	"encoding/binary"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// tracer turns what the stage reports at the begin of each step into calls of a Trace.
type tracer struct {
	read, write *os.File
	done        chan struct{}
	left        atomic.Bool // nobody waits for it any more: no function is to be called
}

// openTrace prepares the pipe of a traced start.
func (r *running) openTrace() error {
	if r.spec.trace == nil {
		return nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	r.tracer = &tracer{read: pr, write: pw, done: make(chan struct{})}
	r.fds["trace"] = int(pw.Fd())
	r.undo.add(func() error { pr.Close(); return ignoreClosed(pw.Close()) })
	return nil
}

// follow reads until the stage has closed its end: when it has executed the command or has died.
func (t *tracer) follow(prog *program.Program, to *Trace) {
	defer close(t.done)
	steps := prog.Steps()
	var last *program.Step
	var began time.Duration
	finish := func(now time.Duration) {
		if last != nil && to.StepDone != nil && !t.left.Load() {
			to.StepDone(StepInfo{last.Name, last.Object, now - began})
		}
	}
	var rec [program.TraceRecordSize]byte
	for {
		if _, err := io.ReadFull(t.read, rec[:]); err != nil {
			finish(monotonic())
			return
		}
		ne := binary.NativeEndian
		i := ne.Uint64(rec[:])
		now := time.Duration(ne.Uint64(rec[8:]))*time.Second + time.Duration(ne.Uint64(rec[16:]))
		finish(now)
		if i >= uint64(len(steps)) {
			return
		}
		last, began = &steps[i], now
		if to.StepStart != nil && !t.left.Load() {
			to.StepStart(StepInfo{Step: last.Name, Object: last.Object})
		}
	}
}

// leave ends the following of a stage that does not end.
func (t *tracer) leave() {
	if t != nil {
		t.read.Close()
	}
}

// monotonic reads the clock that the stage reads.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
