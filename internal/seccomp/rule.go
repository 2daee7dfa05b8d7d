package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A rule is one line of a profile, checked: if it is one of the calls (by
// their place in the table of names) and all conds hold, the filter returns
// ret.
type rule struct {
	calls []int
	conds []cond
	ret   uint32
}

// A cond compares one argument of the call, as 64-bit unsigned numbers.
type cond struct {
	arg    uint8
	op     op
	value  uint64 // MASKED_EQ: the mask
	value2 uint64 // MASKED_EQ: what must be left under the mask
}

type op uint8

const (
	opNE op = iota
	opLT
	opLE
	opEQ
	opGE
	opGT
	opMaskedEQ
)

// parseRules checks all rules and returns them, the names no table has, and
// every fault found.
//
// A rule whose action is the default one is left out, as runc does: it would
// change nothing, and libseccomp refuses it.
//
// A rule that names one argument twice is taken as several rules, one for
// each of its conditions, any of which suffices, as runc does.
func parseRules(syscalls []specs.LinuxSyscall, fallback uint32) (rules []rule, unknown []string, err error) {
	var faults []error
	for i, s := range syscalls {
		r, err := parseRule(s)
		if err != nil {
			faults = append(faults, fmt.Errorf("syscalls[%d]: %w", i, err))
			continue
		}
		r.calls, unknown = findNames(s.Names, unknown)
		switch {
		case r.ret == fallback:
		case twice(r.conds):
			for _, c := range r.conds {
				rules = append(rules, rule{r.calls, []cond{c}, r.ret})
			}
		default:
			rules = append(rules, r)
		}
	}
	return rules, unknown, errors.Join(faults...)
}

// findNames returns where names stand in the table, and adds those that do
// not to unknown.
func findNames(names, unknown []string) (calls []int, more []string) {
	calls = make([]int, 0, len(names))
	at := 0
	for _, name := range names {
		i, ok := findNear(name, at)
		if ok {
			calls, at = append(calls, i), i
		} else if !slices.Contains(unknown, name) {
			unknown = append(unknown, name)
		}
	}
	return calls, unknown
}

func parseRule(s specs.LinuxSyscall) (rule, error) {
	var faults []error
	if len(s.Names) == 0 {
		faults = append(faults, fmt.Errorf("no names: %w", ErrInvalid))
	}
	ret, err := parseAction(s.Action, s.ErrnoRet)
	faults = append(faults, err)
	r := rule{ret: ret}
	for i, a := range s.Args {
		c, err := parseCond(a)
		if err != nil {
			faults = append(faults, fmt.Errorf("args[%d]: %w", i, err))
		}
		r.conds = append(r.conds, c)
	}
	return r, errors.Join(faults...)
}

func parseOp(o specs.LinuxSeccompOperator) (op, error) {
	switch o {
	case specs.OpNotEqual:
		return opNE, nil
	case specs.OpLessThan:
		return opLT, nil
	case specs.OpLessEqual:
		return opLE, nil
	case specs.OpEqualTo:
		return opEQ, nil
	case specs.OpGreaterEqual:
		return opGE, nil
	case specs.OpGreaterThan:
		return opGT, nil
	case specs.OpMaskedEqual:
		return opMaskedEQ, nil
	}
	return 0, fmt.Errorf("operator %q: unknown: %w", string(o), ErrInvalid)
}

// parseCond checks one condition. valueTwo counts for MASKED_EQ alone.
func parseCond(a specs.LinuxSeccompArg) (cond, error) {
	var faults []error
	if a.Index >= argCount {
		faults = append(faults, fmt.Errorf("index %d: a system call has arguments 0 to 5: %w", a.Index, ErrInvalid))
	}
	o, err := parseOp(a.Op)
	faults = append(faults, err)
	c := cond{arg: uint8(a.Index), op: o, value: a.Value}
	if o == opMaskedEQ {
		c.value2 = a.ValueTwo
	}
	return c, errors.Join(faults...)
}

// twice reports whether two of the conditions look at the same argument.
func twice(conds []cond) bool {
	var seen [argCount]bool
	for _, c := range conds {
		if seen[c.arg] {
			return true
		}
		seen[c.arg] = true
	}
	return false
}

// on32 is the condition as an ABI with 32-bit arguments meets it. There the
// kernel zero-extends arguments, so that -1 arrives as 0xffffffff; a value
// written as a negative 64-bit number is cut to match.
func (c cond) on32() cond {
	c.value = cut32(c.value)
	c.value2 = cut32(c.value2)
	return c
}

func cut32(v uint64) uint64 {
	if int64(v) < 0 && int64(v) >= -1<<31 {
		return v & 0xffffffff
	}
	return v
}
