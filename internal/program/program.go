//go:build linux

package program

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Program is a finished list of operations. It is immutable and safe for concurrent use.
type Program struct {
	ops    []Op
	steps  []Step
	inputs []string
	words  []uint64 // variables, with their initial values
	points []point  // variables that begin as addresses
	goesOn bool     // it ends in another program

	memory *memory
}

// memory is what a program remembers of having been encoded.
type memory struct {
	once  atomic.Bool // it has been encoded
	image atomic.Pointer[kept]
	reads atomic.Pointer[reads] // the last answer of Reads
}

type reads struct {
	input string
	n     int
}

type point struct {
	word Word
	arg  Arg
}

// Step is a group of operations that belong together and have one readable name.
type Step struct {
	Name   string // what is done: "mount proc"
	Object string // on what: "/proc"; may be empty
	First  int    // index of its first operation
}

// String returns "mount proc on /proc", or the bare name where there is no object.
func (s Step) String() string {
	if s.Object == "" {
		return s.Name
	}
	return s.Name + " " + s.Object
}

// Op is one operation: a system call, or one of the pseudo operations of the interpreter (negative Nr).
type Op struct {
	Nr      int64
	Name    string // "mount"; pseudo operations have none
	Args    []Arg
	Ignored []syscall.Errno // at most three errnos that are not a failure

	step        int
	okTo, ignTo Label
	toNext      bool // after success the next program is performed
}

// Label is a place in a program that an operation can jump to. The zero Label means "the next operation".
type Label int

// Pseudo operations, understood by the interpreters (stage/interp_*.s and Program.Run).
const (
	opCopy      = -1 // *(uint64*)a1 = *(uint64*)a0
	opJumpZero  = -2 // jump if *(uint64*)a0 == 0
	opAdd       = -3 // *(uint64*)a0 += a1
	opJumpBelow = -4 // jump if *(uint64*)a0 < a1 (unsigned)
	opFailZero  = -5 // fail with errno a1 if *(uint64*)a0 == 0
)

// Inputs returns the names of the files the program needs, in the order in which Encode takes them.
func (p *Program) Inputs() []string { return p.inputs }

// Steps returns the steps in order.
func (p *Program) Steps() []Step { return p.steps }

// Ops returns the operations in order. The caller must not change them.
func (p *Program) Ops() []Op { return p.ops }

// Encoded reports whether the program has been encoded before: it is one that is performed more than once.
func (p *Program) Encoded() bool { return p.memory.once.Load() }

// Reads counts the operations that read from an input.
func (p *Program) Reads(input string) (n int) {
	if r := p.memory.reads.Load(); r != nil && r.input == input {
		return r.n
	}
	defer func() { p.memory.reads.Store(&reads{input, n}) }()
	for i := range p.ops {
		o := &p.ops[i]
		if len(o.Args) > 0 && o.Args[0].kind == kindInput && o.Args[0].text == input && (o.Nr == unix.SYS_READ || o.Nr == unix.SYS_RECVMSG || o.Nr == unix.SYS_RECVFROM) {
			n++
		}
	}
	return n
}

// Step returns the step that operation op belongs to.
func (p *Program) Step(op int) Step {
	if op < 0 || op >= len(p.ops) {
		return Step{Name: fmt.Sprintf("operation %d", op)}
	}
	return p.steps[p.ops[op].step]
}

// StepError says which operation of a program failed. It unwraps to the errno.
type StepError struct {
	Step    string // name of the step: "mount proc"
	Object  string // what it acted on: "/proc"
	Syscall string // the system call: "mount"
	Call    string // the call with its arguments, as Explain prints it
	Index   int    // index of the operation
	Errno   syscall.Errno
}

func (e *StepError) Error() string {
	var b strings.Builder
	b.WriteString(e.Step)
	if e.Object != "" {
		b.WriteString(" " + e.Object)
	}
	if e.Syscall != "" && e.Syscall != e.Step {
		b.WriteString(": " + e.Syscall)
	}
	b.WriteString(": " + e.Errno.Error())
	return b.String()
}

// Unwrap returns the errno.
func (e *StepError) Unwrap() error { return e.Errno }

// Error returns the error for a failure of operation op with errno.
func (p *Program) Error(op int, errno syscall.Errno) error {
	if op < 0 || op >= len(p.ops) {
		return fmt.Errorf("operation %d of %d: %w (a fault in caisson: please report it)", op, len(p.ops), errno)
	}
	s := p.Step(op)
	return &StepError{Step: s.Name, Object: s.Object, Syscall: p.ops[op].Name, Call: p.render(op), Index: op, Errno: errno}
}

// ErrInputs is returned by Encode and Run when the number of files differs from the number of inputs.
var ErrInputs = errors.New("program: wrong number of input files")
