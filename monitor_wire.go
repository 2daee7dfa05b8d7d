package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"syscall"
	"time"

	"github.com/caisson-go/caisson/internal/state"
)

// What programs say to a monitor over its socket: a packet with a request, and one with the answer. An attachment goes on from
// there with packets of the kinds below, which begin with the kind.
const (
	opStart  = "start"  // by the program that starts the monitor
	opStop   = "stop"   // Stop
	opSignal = "signal" // Signal
	opEnded  = "ended"  // wait until a run has ended; its result
	opNext   = "next"   // wait until another run follows, or none
	opHealth = "health"
	opAttach = "attach"
)

const (
	packStdin      = iota // from the client
	packStdout            // to it
	packStderr            //
	packResize            // rows and columns, 16 bits each, big endian
	packCloseInput        //
	packDropped           // how many bytes were lost so far, 64 bits, big endian
	packEnd               // an answer: how the attachment ended
)

// maxPacket bounds a packet.
const maxPacket = 64 << 10

// errNoMonitor: nobody answers.
var errNoMonitor = errors.New("the container's monitor does not answer")

type request struct {
	Op     string        `json:"op"`
	Grace  time.Duration `json:"grace,omitempty"`
	Signal int           `json:"signal,omitempty"`
	Run    int           `json:"run,omitempty"`
	Stdout bool          `json:"stdout,omitempty"`
	Stderr bool          `json:"stderr,omitempty"`
}

type answer struct {
	Error  *wireError    `json:"error,omitempty"`
	Run    int           `json:"run,omitempty"`
	Final  bool          `json:"final,omitempty"`
	Result *state.Result `json:"result,omitempty"`
	Health *Health       `json:"health,omitempty"`
}

// wireError is an error on its way to another program. What it is can be asked for there by errors.Is.
type wireError struct {
	Text   string        `json:"text"`
	Remedy string        `json:"remedy,omitempty"`
	Is     []string      `json:"is,omitempty"`
	Errno  syscall.Errno `json:"errno,omitempty"`
}

// wireErrors are the errors that are told apart.
var wireErrors = map[string]error{
	"invalid": ErrInvalid, "unsupported": ErrUnsupported, "state": ErrState, "stopped": ErrStopped, "closed": ErrClosed, "exists": ErrExists,
	"no container": ErrNotFound, "corrupt": ErrCorruptState, "version": ErrStateVersion, "not exist": fs.ErrNotExist, "permission": fs.ErrPermission,
	"canceled": context.Canceled, "deadline": context.DeadlineExceeded, "detached": ErrDetached, "status unknown": ErrStatusUnknown,
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{}
	var e *Error
	if errors.As(err, &e) {
		w.Remedy = e.Remedy
		if e == err { // who gets it adds operation and id
			err = e.Err
		}
	}
	w.Text = err.Error()
	for name, known := range wireErrors {
		if errors.Is(err, known) {
			w.Is = append(w.Is, name)
		}
	}
	errors.As(err, &w.Errno)
	return w
}

// monitorError is an error that a monitor told of.
type monitorError struct {
	text string
	is   []error
}

func (e *monitorError) Error() string   { return e.text }
func (e *monitorError) Unwrap() []error { return e.is }

// from is the error as this program sees it, of an operation.
func (w *wireError) from(op, id string) error {
	if w == nil {
		return nil
	}
	e := &monitorError{text: w.Text}
	for _, name := range w.Is {
		if known := wireErrors[name]; known != nil {
			e.is = append(e.is, known)
		}
	}
	if w.Errno != 0 {
		e.is = append(e.is, w.Errno)
	}
	return &Error{Op: op, ID: id, Err: e, Remedy: w.Remedy}
}

func parseRequest(b []byte) (r request, err error) {
	if err = json.Unmarshal(b, &r); err != nil {
		err = errors.Join(ErrInvalid, err)
	}
	return r, err
}
