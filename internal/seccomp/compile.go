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

// Check returns the faults that Compile finds in a profile whatever the
// architecture.
func Check(p *specs.LinuxSeccomp) error {
	if _, err := check(p, AMD64); err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	return nil
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
	fates    []fate // memory for those of one ABI after the other
	out      *Program
}

// A block is code already put for a fate, for other calls to share.
type block struct {
	fate fate
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
		a := Arch(i + 1)
		switch token := a.Token(); {
		case c.arches[a]:
			byToken[token] = append(byToken[token], c.cover(a)...)
		case a == X32 && c.native == AMD64: // the wrong ABI, though the token is right
			byToken[token] = append(byToken[token], span{a.bit(), c.asm.ret(RetKillProcess)})
		}
	}
	beyond := c.asm.ret(c.beyond)
	next := c.asm.ret(RetKillProcess)
	for _, token := range c.tokens() {
		// -1 is what a tracer writes to skip a call, and not one of x32.
		spans := append(byToken[token], span{math.MaxUint32, beyond})
		tree := c.asm.op(opLoad, offNr, c.asm.tree(spans))
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

// cover puts the code for each call of an ABI and returns which numbers lead
// where, from the ABI's first on: the calls in the table, and, between and
// beyond its ranges, the answer to what is newer.
func (c *compiler) cover(a Arch) []span {
	l := newLedger(a, c.fallback, c.fates)
	c.fates = l.fates
	l.apply(c.rules)
	beyond := c.asm.ret(c.beyond)
	var out []span
	next := a.bit()
	for i := range l.fates {
		n := l.number(i)
		if n != next {
			out = append(out, span{next, beyond})
		}
		if at := c.place(&l.fates[i]); len(out) == 0 || out[len(out)-1].to != at {
			out = append(out, span{n, at})
		}
		next = n + 1
	}
	return append(out, span{next, beyond})
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
	c.blocks = append(c.blocks, block{*f, at})
	return at
}
