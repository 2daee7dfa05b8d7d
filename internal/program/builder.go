//go:build linux

package program

import (
	"fmt"
	"slices"
	"syscall"
)

// Builder collects operations into a Program. Its methods never fail: a fault of the caller (a label that is
// never placed, an unknown input) is reported by Build.
type Builder struct {
	p      Program
	labels []int // label-1 -> op index, or -1
	trace  bool
	faults []error
	args   []Arg // backing of the operations' arguments, so that they need few allocations
	bound  map[string]Arg
}

// NewBuilder returns an empty builder. With trace, every step reports its start time to the input
// "trace" (see TraceRecord); Explain is meant for programs without.
func NewBuilder(trace bool) *Builder { return &Builder{trace: trace} }

// Grow makes room for a program of about so many operations.
func (b *Builder) Grow(ops int) {
	b.p.ops = make([]Op, 0, ops)
	b.p.steps = make([]Step, 0, ops/2)
	b.args = make([]Arg, 0, 4*ops)
}

// Step begins a step; operations that follow belong to it.
func (b *Builder) Step(name, object string) {
	b.p.steps = append(b.p.steps, Step{Name: name, Object: object, First: len(b.p.ops)})
	if b.trace {
		b.emitTrace(len(b.p.steps) - 1)
	}
}

// Input declares a file that the host passes, and returns the argument that stands for its number. Declaring
// a name again returns the same input.
func (b *Builder) Input(name string) Arg {
	if a, ok := b.bound[name]; ok {
		return a
	}
	i := slices.Index(b.p.inputs, name)
	if i < 0 {
		i = len(b.p.inputs)
		b.p.inputs = append(b.p.inputs, name)
	}
	return Arg{kind: kindInput, val: uint64(i), text: name}
}

// Bind lets a stand for the input of that name from here on: for files that the program gets by itself.
func (b *Builder) Bind(name string, a Arg) {
	if b.bound == nil {
		b.bound = map[string]Arg{}
	}
	b.bound[name] = a
}

// Words makes variables that follow one another in memory, with their initial values, and returns the first.
func (b *Builder) Words(init ...uint64) Word {
	b.p.words = append(b.p.words, init...)
	return Word(len(b.p.words) - len(init))
}

// Point makes the initial value of w the address that a stands for.
func (b *Builder) Point(w Word, a Arg) { b.p.points = append(b.p.points, point{w, a}) }

// OpRef is an operation already in the program.
type OpRef struct {
	b *Builder
	i int
}

// Call adds a system call.
func (b *Builder) Call(nr uintptr, name string, args ...Arg) OpRef {
	return b.add(Op{Nr: int64(nr), Name: name, Args: args})
}

func (b *Builder) add(o Op) OpRef {
	if len(b.p.steps) == 0 {
		b.p.steps = append(b.p.steps, Step{Name: "begin"})
	}
	if len(o.Args) > 6 {
		b.faults = append(b.faults, fmt.Errorf("program: %s has %d arguments", o.Name, len(o.Args)))
	}
	o.step = len(b.p.steps) - 1
	if len(b.args)+len(o.Args) > cap(b.args) {
		b.args = make([]Arg, 0, 64)
	}
	n := len(b.args)
	b.args = append(b.args, o.Args...)
	o.Args = b.args[n:len(b.args):len(b.args)]
	b.p.ops = append(b.p.ops, o)
	return OpRef{b, len(b.p.ops) - 1}
}

// Result is the value that the operation returned, as an argument of a later one.
func (o OpRef) Result() Arg { return Arg{kind: kindResult, val: uint64(o.i)} }

// Ignore makes the given errnos no failure: the program goes on with the next operation. An operation can
// ignore three errnos.
func (o OpRef) Ignore(e ...syscall.Errno) OpRef { return o.IgnoreTo(0, e...) }

// IgnoreTo makes the given errnos no failure: the program goes on at l.
func (o OpRef) IgnoreTo(l Label, e ...syscall.Errno) OpRef {
	op := &o.b.p.ops[o.i]
	op.Ignored = append(op.Ignored, e...)
	op.ignTo = l
	if len(op.Ignored) > 3 {
		o.b.faults = append(o.b.faults, fmt.Errorf("program: %s ignores more than three errnos", op.Name))
	}
	return o
}

// Then makes the program go on at l when the operation succeeds.
func (o OpRef) Then(l Label) OpRef { o.b.p.ops[o.i].okTo = l; return o }

// NewLabel makes a label, to be placed by Mark.
func (b *Builder) NewLabel() Label { b.labels = append(b.labels, -1); return Label(len(b.labels)) }

// Mark places l before the next operation.
func (b *Builder) Mark(l Label) { b.labels[l-1] = len(b.p.ops) }

// JumpZero jumps to l if the result of o, so far, is zero.
func (b *Builder) JumpZero(o OpRef, l Label) {
	b.add(Op{Nr: opJumpZero, Args: []Arg{o.addr()}, okTo: l})
}

// FailZero fails with errno if the result of o is zero.
func (b *Builder) FailZero(o OpRef, e syscall.Errno) {
	r := b.add(Op{Nr: opFailZero, Args: []Arg{o.addr(), Int(uintptr(e))}})
	b.p.ops[r.i].Name = b.p.ops[o.i].Name
}

// JumpBelow jumps to l if w < limit.
func (b *Builder) JumpBelow(w Word, limit Arg, l Label) {
	b.add(Op{Nr: opJumpBelow, Args: []Arg{w.Addr(), limit}, okTo: l})
}

// Add adds n to w.
func (b *Builder) Add(w Word, n uint64) { b.add(Op{Nr: opAdd, Args: []Arg{w.Addr(), Int(n)}}) }

// AddWord adds the content of n to w.
func (b *Builder) AddWord(w, n Word) { b.add(Op{Nr: opAdd, Args: []Arg{w.Addr(), n.Value()}}) }

// Copy stores the result of o in w.
func (b *Builder) Copy(o OpRef, w Word) { b.add(Op{Nr: opCopy, Args: []Arg{o.addr(), w.Addr()}}) }

// CopyWord stores from in to.
func (b *Builder) CopyWord(from, to Word) {
	b.add(Op{Nr: opCopy, Args: []Arg{from.Addr(), to.Addr()}})
}

// ClearUpperHalf clears the half of w that comes second in memory; zero is a word of that value. The low half of the word
// that follows w is cleared too.
func (b *Builder) ClearUpperHalf(w, zero Word) {
	half := Arg{kind: kindWord, val: uint64(w) | 1<<halfShift}
	b.add(Op{Nr: opCopy, Args: []Arg{zero.Addr(), half}})
}

func (o OpRef) addr() Arg { return Arg{kind: kindResult, val: uint64(o.i), text: "addr"} }

// Build returns the program. The builder must not be used afterwards.
func (b *Builder) Build() (*Program, error) {
	for i := range b.p.ops {
		o := &b.p.ops[i]
		for _, l := range []*Label{&o.okTo, &o.ignTo} {
			if *l == 0 {
				continue
			}
			if int(*l) > len(b.labels) || b.labels[*l-1] < 0 {
				b.faults = append(b.faults, fmt.Errorf("program: label %d of %s is not placed", *l, o.Name))
				continue
			}
			// From here on a label holds the index of its target plus one.
			*l = Label(b.labels[*l-1] + 1)
		}
	}
	if len(b.faults) > 0 {
		return nil, b.faults[0]
	}
	b.p.memory = new(memory)
	return &b.p, nil
}

// JumpNext makes the program go on, from here, with the one that stands behind it in memory by then: see [Next].
func (b *Builder) JumpNext() {
	r := b.add(Op{Nr: opJumpZero, Args: []Arg{b.Words(0).Addr()}})
	b.p.ops[r.i].toNext, b.p.goesOn = true, true
}

// Index returns the operation's index.
func (o OpRef) Index() int { return o.i }
