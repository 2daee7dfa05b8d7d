package caisson

import (
	"errors"
	"io"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caisson-go/caisson/internal/logs"
)

// streams are the standard streams of one start: what the process gets, and the goroutines that copy.
type streams struct {
	child  []*os.File // what the process gets as descriptors 0, 1, 2
	close  []*os.File // the process's ends that are ours to close once it has been started
	ours   []*os.File // our ends of the pipes
	copies []func() error
	feed   func() // copies the input; not waited for, since its reader may never end

	terminalIn  io.Reader
	terminalOut io.Writer
	outs        *outputs // who gets a copy of the output; nil: nobody

	begun chan struct{} // where not nil: closed when copying has begun, or never will

	limit   int64 // 0: none
	written atomic.Int64
	onLimit func()

	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

// openStreams prepares the streams. With a limit on the output, or somebody who gets a copy, even files are copied to.
func openStreams(p *processSpec, limit int64, outs *outputs) (s *streams, err error) {
	s = &streams{limit: limit, outs: outs}
	defer func() {
		if err != nil {
			s.abort()
		}
	}()
	if err := s.input(p.stdin); err != nil {
		return s, err
	}
	one := p.stderr != nil && same(p.stderr, p.stdout)
	if one && outs != nil { // who gets a copy is told which stream it was
		w := &oneAtATime{w: p.stdout}
		return s, errors.Join(s.output(logs.Stdout, w), s.output(logs.Stderr, w))
	}
	if err := s.output(logs.Stdout, p.stdout); err != nil {
		return s, err
	}
	if one {
		s.child = append(s.child, s.child[1])
		return s, nil
	}
	return s, s.output(logs.Stderr, p.stderr)
}

// same reports whether two writers are the same, without panicking on types that cannot be compared.
func same(a, b io.Writer) bool {
	if a == nil || b == nil || !reflect.TypeOf(a).Comparable() || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	return a == b
}

// null leaves the stream to the stage, which opens the container's own null device. The host's must not be passed: root
// in the container could change its mode through the descriptor.
func (s *streams) null() error {
	s.child = append(s.child, nil)
	return nil
}

// nullStreams tells which standard streams lead nowhere. With a limit on the output it is counted all the same, and copied
// where somebody gets a copy.
func (s *spec) nullStreams() [3]bool {
	p := &s.process
	uncounted := p.outputLimit == 0 && !s.copied()
	return [3]bool{p.stdin == nil && !s.attachable, p.stdout == nil && uncounted, p.stderr == nil && uncounted}
}

func (s *streams) input(r io.Reader) error {
	if r == nil && s.outs != nil && s.outs.hub != nil {
		return s.held()
	}
	if r == nil {
		return s.null()
	}
	if f, ok := r.(*os.File); ok {
		s.child = append(s.child, f)
		return nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	s.child, s.close, s.ours = append(s.child, pr), append(s.close, pr), append(s.ours, pw)
	s.feed = func() {
		_, _ = io.Copy(pw, r) // a process that does not read all of its input is no fault
		pw.Close()
	}
	return nil
}

// held makes the input a pipe that stays open for those who attach.
func (s *streams) held() error {
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	s.child, s.close, s.ours = append(s.child, pr), append(s.close, pr), append(s.ours, pw)
	s.outs.hub.in = pw
	return nil
}

func (s *streams) output(stream logs.Stream, w io.Writer) error {
	direct := s.limit == 0 && s.outs == nil
	if w == nil && direct {
		return s.null()
	}
	if f, ok := w.(*os.File); ok && direct {
		s.child = append(s.child, f)
		return nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	s.child, s.close, s.ours = append(s.child, pw), append(s.close, pw), append(s.ours, pr)
	s.copies = append(s.copies, func() error {
		return s.copyAll(stream, w, func(w io.Writer) error { return s.copyOut(w, pr) })
	})
	return nil
}

// copyBuffer is what a copied stream costs the host program.
const copyBuffer = 12 << 10

// copyOut copies output up to the limit. What comes after it is read and thrown away, so that the process does
// not block before it is killed.
func (s *streams) copyOut(w io.Writer, r *os.File) error {
	defer r.Close()
	if s.limit == 0 {
		// The file's own method would take a buffer of twice the size. Many containers may run.
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, copyBuffer))
		return ignoreClosed(err)
	}
	buf := make([]byte, copyBuffer)
	for {
		n, err := r.Read(buf)
		before := s.written.Add(int64(n)) - int64(n)
		if keep := min(int64(n), max(s.limit-before, 0)); keep > 0 {
			if _, werr := w.Write(buf[:keep]); werr != nil {
				return werr
			}
		}
		if before+int64(n) > s.limit {
			s.onLimit()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return ignoreClosed(err)
		}
	}
}

// started closes what belongs to the process and begins to copy.
func (s *streams) started(onLimit func()) {
	s.onLimit = sync.OnceFunc(onLimit)
	s.closeChild()
	if s.feed != nil {
		go s.feed()
	}
	for _, c := range s.copies {
		s.wg.Go(func() {
			if err := c(); err != nil {
				s.mu.Lock()
				s.errs = append(s.errs, err)
				s.mu.Unlock()
			}
		})
	}
}

func (s *streams) closeChild() {
	for _, f := range s.close {
		f.Close()
	}
	s.close = nil
}

// wait waits for the output to be copied, at most for delay, if there is one. Input is not waited for: its
// reader may be waiting for what nobody reads any more; its goroutine ends with the next read.
func (s *streams) wait(delay time.Duration) error {
	defer s.closeOurs()
	if len(s.copies) > 0 {
		done := make(chan struct{})
		go func() { s.wg.Wait(); close(done) }()
		var expired <-chan time.Time
		if delay > 0 {
			t := time.NewTimer(delay)
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-done:
		case <-expired:
			return errWaitDelay
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// errWaitDelay is what Wait returns when streams were still open at the end of the delay.
var errWaitDelay = errors.New("streams were still open when the time given by WithWaitDelay had passed")

// abort releases everything without a process.
func (s *streams) abort() {
	s.closeChild()
	s.closeOurs()
}

func (s *streams) closeOurs() {
	for _, f := range s.ours {
		f.Close()
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
