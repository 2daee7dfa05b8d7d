//go:build linux

package program

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Explain prints the program: a comment line for each step, and its system calls in the form strace uses.
// Descriptors that exist only once the program runs are shown by name. A remark behind a call tells which errors are
// tolerated, and how many of the calls that follow are left out in which case.
func (p *Program) Explain(w io.Writer) error {
	var b strings.Builder
	step := -1
	for i := range p.ops {
		if p.ops[i].Nr < 0 {
			continue
		}
		if p.ops[i].step != step {
			step = p.ops[i].step
			fmt.Fprintf(&b, "# %s\n", p.steps[step])
		}
		b.WriteString(p.render(i))
		if n := p.note(i); n != "" {
			b.WriteString("  # " + n)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Render returns operation i as "mount("proc", "/proc", "proc", MS_NOSUID, NULL)".
func (p *Program) Render(i int) string { return p.render(i) }

func (p *Program) render(i int) string {
	o := &p.ops[i]
	args := make([]string, len(o.Args))
	for k, a := range o.Args {
		args[k] = p.shown(a)
	}
	return o.Name + "(" + strings.Join(args, ", ") + ")"
}

// note says which errnos are tolerated and where the program goes on, if not with the next call.
func (p *Program) note(i int) string {
	var notes []string
	o := &p.ops[i]
	if len(o.Ignored) > 0 {
		names := make([]string, len(o.Ignored))
		for k, e := range o.Ignored {
			names[k] = errnoName(e)
		}
		n := "tolerates " + strings.Join(names, ", ")
		if skip := p.skipped(i, o.ignTo); skip != "" {
			n += ": " + skip
		}
		notes = append(notes, n)
	}
	if skip := p.afterwards(i); skip != "" {
		notes = append(notes, skip)
	}
	return strings.Join(notes, "; ")
}

// afterwards tells what follows the success of operation i: its own jump, or those of the pseudo operations behind it.
func (p *Program) afterwards(i int) string {
	if l := p.ops[i].okTo; l != 0 {
		return p.skipped(i, l)
	}
	for k := i + 1; k < len(p.ops) && p.ops[k].Nr < 0; k++ {
		switch o := &p.ops[k]; o.Nr {
		case opJumpZero:
			if skip := p.skipped(i, o.okTo); skip != "" {
				return "if 0, " + skip
			}
		case opFailZero:
			return "fails if 0"
		case opJumpBelow:
			return p.skipped(i, o.okTo)
		}
	}
	return ""
}

// skipped counts the calls between operation i and the target l of a jump; "" for a jump to the next call.
func (p *Program) skipped(i int, l Label) string {
	to, n := int(l)-1, 0
	if l == 0 {
		return ""
	}
	for k := min(i+1, to); k < max(i+1, to) && k < len(p.ops); k++ {
		if p.ops[k].Nr >= 0 {
			n++
		}
	}
	switch {
	case to <= i:
		return "goes back " + strconv.Itoa(n)
	case n == 0:
		return ""
	}
	return "skips " + strconv.Itoa(n)
}

func errnoName(e syscall.Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return "errno " + strconv.Itoa(int(e))
}

func (p *Program) shown(a Arg) string {
	switch a.kind {
	case kindNull:
		return "NULL"
	case kindInput:
		return "<" + a.text + ">"
	case kindResult:
		return "<" + p.resultName(int(a.val)) + ">"
	case kindWordVal, kindWord:
		if a.text != "" {
			return a.text
		}
		return "<word " + strconv.FormatUint(a.val, 10) + ">"
	case kindStr:
		return quote(a.text)
	case kindStrv:
		return strv(a.ext.list)
	case kindBytes:
		return a.text
	case kindHex:
		return "0" + strconv.FormatUint(a.val, 8)
	case kindFlags:
		return flagNames(a.val, *a.names)
	}
	if a.text != "" {
		return a.text
	}
	if int64(a.val) == int64(unix.AT_FDCWD) {
		return "AT_FDCWD"
	}
	return strconv.FormatInt(int64(a.val), 10)
}

// resultName names what an operation returned: "fsmount proc" for a descriptor made in step "mount proc".
func (p *Program) resultName(i int) string {
	s := p.Step(i)
	if s.Object != "" {
		return p.ops[i].Name + " " + s.Object
	}
	return p.ops[i].Name
}

func quote(s string) string {
	const most = 256
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}

func strv(v []string) string {
	q := make([]string, len(v))
	for i, s := range v {
		q[i] = quote(s)
	}
	return "[" + strings.Join(q, ", ") + "]"
}

func flagNames(v uint64, names []Flag) string {
	if v == 0 {
		return "0"
	}
	var out []string
	for _, n := range names {
		if n.Bit != 0 && v&n.Bit == n.Bit {
			out = append(out, n.Name)
			v &^= n.Bit
		}
	}
	if v != 0 {
		out = append(out, "0x"+strconv.FormatUint(v, 16))
	}
	return strings.Join(out, "|")
}
