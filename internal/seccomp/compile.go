package seccomp

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Compile turns a profile into a filter for a kernel whose own ABI is native
// (AMD64, ARM64 or RISCV64). The package comment says what the profile's
// parts come to mean. Every fault of the profile is reported, in one joined
// error that Is [ErrInvalid]; a profile too long for the kernel gives an
// error that Is [ErrTooLong].
func Compile(p *specs.LinuxSeccomp, native Arch) (*Program, error) {
	c, err := check(p, native)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	c.assemble()
	if n := len(c.out.Filter); n > MaxInsns {
		return nil, fmt.Errorf("seccomp profile: needs %d instructions, the kernel takes %d; "+
			"use fewer conditions on arguments: %w", n, MaxInsns, ErrTooLong)
	}
	return c.out, nil
}

// A compiler holds a checked profile and what was made of it so far.
type compiler struct {
	native   Arch
	arches   [archCount + 1]bool // the ABIs the filter has code for
	rules    []rule
	fallback uint32 // the default action
	beyond   uint32 // the answer to numbers newer than the tables
	asm      asm
	blocks   []block
	out      *Program
}

// A block is code already put for a fate, for other calls to share.
type block struct {
	fate *fate
	at   label
}

func check(p *specs.LinuxSeccomp, native Arch) (*compiler, error) {
	if p == nil {
		return nil, fmt.Errorf("none given: %w", ErrInvalid)
	}
	if !native.valid() || archInfo[native-1].native != native {
		return nil, fmt.Errorf("native architecture %v: %w", native, errors.ErrUnsupported)
	}
	c := &compiler{native: native, out: &Program{
		ListenerPath: p.ListenerPath, ListenerMetadata: p.ListenerMetadata,
	}}
	var faults [6]error
	c.fallback, faults[0] = parseAction(p.DefaultAction, p.DefaultErrnoRet)
	if faults[0] != nil {
		faults[0] = fmt.Errorf("default action: %w", faults[0])
	} else if c.fallback == RetNotify {
		faults[1] = fmt.Errorf("default action %s: the process would wait for its listener before it has one: %w",
			p.DefaultAction, ErrInvalid)
	}
	c.out.Flags, faults[2] = parseFlags(p.Flags)
	faults[3] = c.selectArches(p.Architectures)
	c.rules, c.out.Unknown, faults[4] = parseRules(p.Syscalls, c.fallback)
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		faults[5] = fmt.Errorf("listenerMetadata without listenerPath: %w", ErrInvalid)
	}
	c.beyond = c.fallback
	if refuses(c.fallback) {
		c.beyond = RetErrno | enosys
	}
	return c, errors.Join(faults[:]...)
}

func (c *compiler) selectArches(names []specs.Arch) error {
	var faults []error
	c.arches[c.native] = true
	for i, name := range names {
		a, err := parseArch(name)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("architectures[%d]: %w", i, err))
		case a == 0 || archInfo[a-1].native != c.native:
			c.out.Foreign = append(c.out.Foreign, string(name))
		default:
			c.arches[a] = true
		}
	}
	return errors.Join(faults...)
}

// assemble writes the filter, last part first: the code for calls that hang
// on arguments, a search tree for each architecture token, and in front of
// them the choice between tokens.
func (c *compiler) assemble() {
	byToken := map[uint32][]span{}
	for i := range archCount {
		if a := Arch(i + 1); c.arches[a] {
			byToken[a.Token()] = append(byToken[a.Token()], c.calls(a)...)
		}
	}
	next := c.asm.ret(RetKillProcess)
	for _, token := range c.tokens() {
		tree := c.asm.op(opLoad, offNr, c.asm.tree(c.spans(token, byToken[token])))
		next = c.asm.jump(opJeq, token, tree, next)
	}
	c.asm.op(opLoad, offArch, next)
	c.out.Filter = c.asm.program()
	if c.arches[I386] {
		c.out.Partial = partial(c.rules)
	}
	c.out.Notify = slices.ContainsFunc(c.out.Filter, func(i Insn) bool { return i.Code == opRet && i.K == RetNotify })
	c.out.Flags = listen(c.out.Flags, c.out.Notify)
}

// tokens returns the tokens in the filter, the native one, which nearly every
// call has, last: what is written last is asked first.
func (c *compiler) tokens() []uint32 {
	var out []uint32
	for i := range archCount {
		if a := Arch(i + 1); c.arches[a] && a.Token() != c.native.Token() {
			out = append(out, a.Token())
		}
	}
	return append(out, c.native.Token())
}

// calls puts the code for each call of an ABI and returns where it is, in the
// order of the calls' numbers.
func (c *compiler) calls(a Arch) []span {
	l := newLedger(a, c.fallback)
	l.apply(c.rules)
	out := make([]span, len(l.fates))
	for i := range l.fates {
		out[i] = span{l.number(i), c.place(&l.fates[i])}
	}
	return out
}

// place returns where the code of a fate is, putting it if no other call had
// the same.
func (c *compiler) place(f *fate) label {
	if len(f.choices) == 0 {
		return c.asm.ret(f.ret)
	}
	for _, b := range c.blocks {
		if b.fate.equal(f) {
			return b.at
		}
	}
	at := c.asm.conditional(f.choices, f.ret)
	c.blocks = append(c.blocks, block{f, at})
	return at
}

// spans covers all 2^32 numbers under a token: the calls in the tables, the
// answer to what is newer than the tables beyond, and for amd64 the numbers
// of x32.
func (c *compiler) spans(token uint32, calls []span) []span {
	beyond := c.asm.ret(c.beyond)
	var grounds []span
	for i := range archCount {
		a := Arch(i + 1)
		switch {
		case a.Token() != token:
		case c.arches[a]:
			grounds = append(grounds, span{a.bit(), beyond})
		default: // x32 left out: the wrong ABI, though the token is right
			grounds = append(grounds, span{a.bit(), c.asm.ret(RetKillProcess)})
		}
	}
	// -1 is what a tracer writes to skip a call, and not one of x32.
	grounds = append(grounds, span{math.MaxUint32, beyond})
	return lay(grounds, calls)
}

// lay puts single numbers, in order, onto the ground.
func lay(grounds, calls []span) []span {
	out := make([]span, 0, len(grounds)+2*len(calls))
	for i, g := range grounds {
		end := uint64(1) << 32
		if i+1 < len(grounds) {
			end = uint64(grounds[i+1].first)
		}
		at := uint64(g.first)
		for ; len(calls) > 0 && uint64(calls[0].first) < end; calls = calls[1:] {
			call := calls[0]
			if uint64(call.first) > at {
				out = append(out, span{uint32(at), g.to})
			}
			out = append(out, call)
			at = uint64(call.first) + 1
		}
		if at < end {
			out = append(out, span{uint32(at), g.to})
		}
	}
	return join(out)
}
