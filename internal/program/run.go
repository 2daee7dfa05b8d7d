//go:build linux

package program

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Run performs the program on the calling thread and returns at its end, or at the first failure with a
// *StepError. The caller locks the goroutine to its thread where an operation changes the thread.
//
// It is the Go counterpart of the assembly in package stage, for primitives that need no new process and for
// tests; a program that clones or executes must not be run this way.
func (p *Program) Run(fds []int) error { return p.run(fds, func(int64, [6]uint64, uintptr) {}) }

// RunClosing is Run that leaves no descriptor open besides those in fds.
func (p *Program) RunClosing(fds []int) error {
	open := map[int]bool{}
	err := p.run(fds, func(nr int64, a [6]uint64, res uintptr) {
		switch nr {
		case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT:
			open[int(res)] = true
		case unix.SYS_CLOSE:
			delete(open, int(a[0]))
		}
	})
	for fd := range open {
		_ = unix.Close(fd)
	}
	return err
}

// run calls done after every system call that succeeded.
func (p *Program) run(fds []int, done func(nr int64, a [6]uint64, res uintptr)) error {
	// The program is encoded for the address at which the buffer already stands: the Go heap does not move,
	// and the buffer is made large enough not to be replaced.
	buf := make([]byte, p.sizeHint())
	base := uintptr(unsafe.Pointer(unsafe.SliceData(buf)))
	mem, err := p.Encode(buf, base, fds, -1)
	if err != nil {
		return err
	}
	if unsafe.SliceData(mem) != unsafe.SliceData(buf) {
		panic("program: size hint too small")
	}
	defer runtime.KeepAlive(mem)
	word := func(addr uint64) []byte { return mem[addr-uint64(base):][:8] }
	for pc := 0; pc < len(p.ops); {
		op := mem[HeaderSize+pc*OpSize:][:OpSize]
		var a [6]uint64
		mask := native.Uint32(op[offMask:])
		for k := range a {
			a[k] = native.Uint64(op[offArgs+8*k:])
			if mask&(1<<k) != 0 {
				a[k] = native.Uint64(word(a[k]))
			}
		}
		res, errno := perform(int64(native.Uint64(op)), a, word)
		if errno == syscall.EAGAIN && int64(native.Uint64(op)) == unix.SYS_OPENAT2 {
			continue // something was renamed or mounted meanwhile, anywhere
		}
		next := pc + 1
		switch {
		case errno == 0 && res.pseudo:
			if res.jump {
				next += jumpOps(op[offOK:])
			}
		case errno == 0:
			native.PutUint64(op[offResult:], uint64(res.value))
			done(int64(native.Uint64(op)), a, res.value)
			next += jumpOps(op[offOK:])
		case p.ops[pc].ignores(errno):
			next += jumpOps(op[offIgnTo:])
		default:
			return p.Error(pc, errno)
		}
		pc = next
	}
	return nil
}

type result struct {
	value        uintptr
	pseudo, jump bool
}

func perform(nr int64, a [6]uint64, word func(uint64) []byte) (result, syscall.Errno) {
	get := func(addr uint64) uint64 { return native.Uint64(word(addr)) }
	switch nr {
	case opCopy:
		native.PutUint64(word(a[1]), get(a[0]))
		return result{pseudo: true}, 0
	case opJumpZero:
		return result{pseudo: true, jump: get(a[0]) == 0}, 0
	case opAdd:
		native.PutUint64(word(a[0]), get(a[0])+a[1])
		return result{pseudo: true}, 0
	case opJumpBelow:
		return result{pseudo: true, jump: get(a[0]) < a[1]}, 0
	case opFailZero:
		if get(a[0]) == 0 {
			return result{}, syscall.Errno(a[1])
		}
		return result{pseudo: true}, 0
	}
	r, _, e := syscall.Syscall6(uintptr(nr), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
	return result{value: r}, e
}

func jumpOps(b []byte) int { return int(int32(native.Uint32(b))) / OpSize }

func (o *Op) ignores(e syscall.Errno) bool {
	for _, i := range o.Ignored {
		if i == e {
			return true
		}
	}
	return false
}

// sizeHint is an upper bound of the encoded size.
func (p *Program) sizeHint() int {
	n := HeaderSize + len(p.ops)*OpSize + len(p.words)*8
	for _, o := range p.ops {
		for _, a := range o.Args {
			n += a.size()
		}
	}
	return n + 64
}

func (a Arg) size() int {
	n := len(a.text) + 32
	if a.ext == nil {
		return n
	}
	n += len(a.ext.data)
	for _, s := range a.ext.list {
		n += len(s) + 32
	}
	for _, r := range a.ext.parts {
		n += r.to.size()
	}
	return n
}
