package namespaces

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stdio connects a process as os/exec does: files are used directly, other readers and writers are copied.
type stdio struct {
	child  [3]*os.File // what the process gets
	own    []*os.File  // of child, those that we opened
	parent []*os.File  // our ends of pipes
	copies []func() error
	done   chan error
}

func (s *stdio) open(in io.Reader, out, errOut io.Writer) (err error) {
	if s.child[0], err = s.input(in); err == nil {
		s.child[1], err = s.output(out)
	}
	switch {
	case err != nil:
	case errOut != nil && sameWriter(errOut, out):
		s.child[2] = s.child[1]
	default:
		s.child[2], err = s.output(errOut)
	}
	if err != nil {
		s.closeChild()
		s.closeParent()
	}
	return err
}

// sameWriter reports whether both are the same writer, which then gets no writes at the same time.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() { _ = recover() }() // dynamic types that cannot be compared
	return a == b
}

func (s *stdio) input(r io.Reader) (*os.File, error) {
	if r == nil {
		return s.null(os.O_RDONLY)
	}
	if f, ok := r.(*os.File); ok {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.own, s.parent = append(s.own, pr), append(s.parent, pw)
	s.copies = append(s.copies, func() error {
		_, err := io.Copy(pw, r)
		if errors.Is(err, syscall.EPIPE) {
			err = nil // the process did not read all of it
		}
		return errors.Join(err, pw.Close())
	})
	return pr, nil
}

func (s *stdio) output(w io.Writer) (*os.File, error) {
	if w == nil {
		return s.null(os.O_WRONLY)
	}
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.own, s.parent = append(s.own, pw), append(s.parent, pr)
	s.copies = append(s.copies, func() error {
		_, err := io.Copy(w, pr)
		pr.Close() // on a failed write the process gets EPIPE instead of waiting for ever
		return err
	})
	return pw, nil
}

func (s *stdio) null(flag int) (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, flag, 0)
	if err == nil {
		s.own = append(s.own, f)
	}
	return f, err
}

func (s *stdio) closeChild()  { closeAll(s.own) }
func (s *stdio) closeParent() { closeAll(s.parent) }

func closeAll(l []*os.File) {
	for _, f := range l {
		f.Close()
	}
}

func (s *stdio) copy() {
	s.done = make(chan error, len(s.copies))
	for _, f := range s.copies {
		go func() { s.done <- f() }()
	}
}

// wait returns when everything is copied, or delay after the end of the process if it is not zero.
func (s *stdio) wait(delay time.Duration) error {
	var timeout <-chan time.Time
	if delay > 0 {
		timeout = time.After(delay)
	}
	var faults []error
	for left := len(s.copies); left > 0; {
		select {
		case err := <-s.done:
			left--
			if err != nil && timeout != nil || err != nil && !errors.Is(err, os.ErrClosed) {
				faults = append(faults, err)
			}
		case <-timeout:
			timeout = nil
			s.closeParent()
			faults = append(faults, exec.ErrWaitDelay)
		}
	}
	return errors.Join(faults...)
}
