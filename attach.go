package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/caisson-go/caisson/internal/logs"
)

// ErrDetached: an attachment was ended by its detach keys or by Close, while the container goes on.
var ErrDetached = errors.New("detached")

// WithAttachable keeps the standard streams of the command within reach of [Container.Attach]: its output is copied, also if it
// goes to files, and its standard input is a pipe that stays open, so that [WithStdin] cannot be given. A container with a
// terminal can be attached to anyway. Default: false.
//
// A detached container needs a monitor for it ([WithMonitor]).
func WithAttachable(on bool) Option { return option(func(s *spec) { s.attachable = on }) }

// AttachOptions say what an attachment connects. The zero value connects nothing, and tells of the end.
type AttachOptions struct {
	// Stdin is copied to the command's input; nil: nothing. Its last read may go on after the attachment has ended.
	Stdin io.Reader
	// Stdout and Stderr get what the command writes from now on; nil: nothing. What a terminal shows is Stdout.
	Stdout, Stderr io.Writer
	// DetachKeys are what ends the attachment when Stdin has it: keys separated by commas, each a character or ctrl- and one of a-z,
	// @, [, \, ], ^ and _. Default: "ctrl-p,ctrl-q" with a terminal, otherwise none. "none": none.
	DetachKeys string
	// CloseInput closes the command's input at the end of Stdin, for all who are attached. Without a terminal only.
	CloseInput bool
}

// Attachment connects somebody with the streams of a running container. Its methods can be called from any number of
// goroutines.
type Attachment struct {
	opts AttachOptions
	from attachedTo

	mu      sync.Mutex
	queue   []piece
	size    int  // bytes in queue
	ended   bool // nothing will be added to queue
	dropped uint64
	wake    chan struct{} // of size 1

	once sync.Once
	done chan struct{}
	err  error // set before done is closed
}

// attachedTo is the other side of an attachment.
type attachedTo interface {
	write(a *Attachment, p []byte) error
	closeInput() error
	resize(rows, cols uint16) error
	leave(a *Attachment)
}

type piece struct {
	stream logs.Stream
	b      []byte
}

// maxAttached is how much output waits for who is attached, in bytes.
const maxAttached = 256 << 10

// Attach connects with the streams of the running container, from this moment on: its command needs a terminal, or
// [WithAttachable]. A detached container with a monitor can be attached to from any program of its user. Any number can be
// attached at once; each gets all output, and what they write is mixed. None holds the container up: up to 256 KiB wait for one
// that is slow, and what comes then is lost to it, which [Attachment.Dropped] tells.
//
// The attachment ends with the command (a restart is another run), by its detach keys, or by Close; the container ends by none of
// these. ctx bounds the call.
func (c *Container) Attach(ctx context.Context, o AttachOptions) (*Attachment, error) {
	if err := ctx.Err(); err != nil {
		return nil, c.fail("attach", err)
	}
	c.mu.Lock()
	err := c.may("attach", StateRunning, StatePaused)
	run := c.run
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	a, err := run.attachTo(ctx, o)
	return a, c.fail("attach", err)
}

// newAttachment checks the options. What is attached to has a terminal or not.
func newAttachment(o AttachOptions, from attachedTo, terminal bool) (*Attachment, []byte, error) {
	keys := o.DetachKeys
	switch {
	case keys == "" && terminal:
		keys = "ctrl-p,ctrl-q"
	case keys == "none":
		keys = ""
	}
	sequence, err := parseKeys(keys)
	if err != nil {
		return nil, nil, err
	}
	if o.CloseInput && terminal {
		return nil, nil, fmt.Errorf("%w: CloseInput: the input of a terminal cannot be closed", ErrInvalid)
	}
	return &Attachment{opts: o, from: from, wake: make(chan struct{}, 1), done: make(chan struct{})}, sequence, nil
}

// begin starts to copy.
func (a *Attachment) begin(keys []byte) {
	go a.copyOut()
	if a.opts.Stdin != nil {
		go a.copyIn(keys)
	}
}

// Wait waits for the end of the attachment: nil means that the command has ended and all its output was handed on, [ErrDetached]
// that the container goes on, and other errors say which stream failed. If ctx ends first its error is returned, and the
// attachment goes on.
func (a *Attachment) Wait(ctx context.Context) error {
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done returns a channel that is closed when the attachment has ended.
func (a *Attachment) Done() <-chan struct{} { return a.done }

// Dropped returns how many bytes of output were lost because they were taken too slowly.
func (a *Attachment) Dropped() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropped
}

// Resize sets the size of the container's terminal.
func (a *Attachment) Resize(rows, cols uint16) error { return a.from.resize(rows, cols) }

// Close ends the attachment. Closing twice is harmless.
func (a *Attachment) Close() error {
	a.end(ErrDetached)
	return nil
}

// end ends the attachment for a reason, unless it has ended.
func (a *Attachment) end(err error) {
	a.once.Do(func() {
		a.err = err
		close(a.done)
		a.from.leave(a)
	})
}

// push queues output, or counts it as lost.
func (a *Attachment) push(s logs.Stream, p []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s == logs.Stdout && a.opts.Stdout == nil || s == logs.Stderr && a.opts.Stderr == nil {
		return
	}
	if a.size+len(p) > maxAttached {
		a.dropped += uint64(len(p))
		return
	}
	a.size += len(p)
	if n := len(a.queue); n > 0 && a.queue[n-1].stream == s && cap(a.queue[n-1].b)-len(a.queue[n-1].b) >= len(p) {
		a.queue[n-1].b = append(a.queue[n-1].b, p...)
	} else {
		a.queue = append(a.queue, piece{s, append(make([]byte, 0, max(len(p), 4096)), p...)})
	}
	a.signal()
}

// last says that no output follows.
func (a *Attachment) last() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	a.signal()
}

func (a *Attachment) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// copyOut hands output on until the end.
func (a *Attachment) copyOut() {
	for {
		a.mu.Lock()
		queue, ended := a.queue, a.ended
		a.queue, a.size = nil, 0
		a.mu.Unlock()
		for _, p := range queue {
			w := a.opts.Stdout
			if p.stream == logs.Stderr {
				w = a.opts.Stderr
			}
			if _, err := w.Write(p.b); err != nil {
				a.end(fmt.Errorf("%v: %w", p.stream, err))
			}
			select {
			case <-a.done:
				return
			default:
			}
		}
		if ended {
			a.end(nil)
			return
		}
		select {
		case <-a.wake:
		case <-a.done:
			return
		}
	}
}

// copyIn hands input on until its end, or the keys.
func (a *Attachment) copyIn(keys []byte) {
	scan := keyScanner{keys: keys}
	buf := make([]byte, 4096)
	for {
		n, err := a.opts.Stdin.Read(buf)
		select {
		case <-a.done:
			return
		default:
		}
		rest, left := scan.scan(buf[:n])
		if len(rest) > 0 {
			if werr := a.from.write(a, rest); werr != nil {
				return // the command has ended, or reads no more
			}
		}
		if left {
			a.end(ErrDetached)
			return
		}
		if err == nil {
			continue
		}
		if a.opts.CloseInput {
			_ = a.from.closeInput()
		}
		if err != io.EOF {
			a.end(fmt.Errorf("stdin: %w", err))
		}
		return
	}
}

// keyScanner looks for the detach keys.
type keyScanner struct {
	keys []byte
	seen int // of them, held back
}

// scan returns what is to be handed on, and whether the keys were complete.
func (k *keyScanner) scan(p []byte) (rest []byte, left bool) {
	if len(k.keys) == 0 {
		return p, false
	}
	for _, b := range p {
		if b == k.keys[k.seen] {
			if k.seen++; k.seen == len(k.keys) {
				return rest, true
			}
			continue
		}
		rest = append(rest, k.keys[:k.seen]...)
		if k.seen = 0; b == k.keys[0] {
			k.seen = 1
			if len(k.keys) == 1 {
				return rest, true
			}
			continue
		}
		rest = append(rest, b)
	}
	return rest, false
}

const maxKeys = 16

// parseKeys reads "ctrl-p,ctrl-q".
func parseKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var out []byte
	for key := range strings.SplitSeq(s, ",") {
		ctrl, is := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1 && key[0] >= ' ' && key[0] < 0x7f:
			out = append(out, key[0])
		case is && len(ctrl) == 1 && ctrl[0] >= 'a' && ctrl[0] <= 'z':
			out = append(out, ctrl[0]-'a'+1)
		case is && len(ctrl) == 1 && strings.Contains(`@[\]^_`, ctrl):
			out = append(out, ctrl[0]-'@')
		default:
			return nil, fmt.Errorf("%w: detach keys %.40q: %q is no key", ErrInvalid, s, key)
		}
	}
	if len(out) > maxKeys {
		return nil, fmt.Errorf("%w: %d detach keys; at most %d", ErrInvalid, len(out), maxKeys)
	}
	return out, nil
}

// attachHub connects a command that this program runs with whoever is attached.
type attachHub struct {
	terminal bool
	size     func(rows, cols uint16) error

	in   *os.File      // the command's input; nil: there is none
	turn chan struct{} // who has it writes: of size 1

	mu    sync.Mutex
	all   map[*Attachment]bool
	ended bool
}

func newAttachHub(terminal bool) *attachHub {
	return &attachHub{terminal: terminal, turn: make(chan struct{}, 1), all: map[*Attachment]bool{}}
}

// attach connects one more.
func (h *attachHub) attach(o AttachOptions) (*Attachment, error) {
	a, keys, err := newAttachment(o, h, h.terminal)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	if h.ended {
		h.mu.Unlock()
		return nil, fmt.Errorf("%w: the command has ended", ErrState)
	}
	h.all[a] = true
	h.mu.Unlock()
	a.begin(keys)
	return a, nil
}

func (h *attachHub) take(s logs.Stream, p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a := range h.all {
		a.push(s, p)
	}
}

func (h *attachHub) leave(a *Attachment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, a)
}

// end says that the command has ended and its output was copied.
func (h *attachHub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for a := range h.all {
		a.last()
	}
}

// write hands input on; it ends with the attachment.
func (h *attachHub) write(a *Attachment, p []byte) error {
	select {
	case h.turn <- struct{}{}:
	case <-a.done:
		return ErrDetached
	}
	defer func() { <-h.turn }()
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-a.done:
			_ = h.in.SetWriteDeadline(time.Unix(1, 0))
		case <-over:
		}
	})
	_, err := h.in.Write(p)
	close(over)
	watch.Wait()
	_ = h.in.SetWriteDeadline(time.Time{})
	return err
}

// Write is what a reader given by WithStdin is copied to.
func (h *attachHub) Write(p []byte) (int, error) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	return h.in.Write(p)
}

func (h *attachHub) closeInput() error {
	if h.terminal {
		return fmt.Errorf("%w: the input of a terminal cannot be closed", ErrInvalid)
	}
	return ignoreClosed(h.in.Close())
}

func (h *attachHub) resize(rows, cols uint16) error { return h.size(rows, cols) }
