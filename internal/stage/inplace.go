//go:build linux

package stage

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

func addressOf(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }

// encodeInPlace encodes p for the address at which buf stands, so that it can be performed there.
func encodeInPlace(p *program.Program, buf *[]byte, fds []int, report int) ([]byte, error) {
	for {
		base := uintptr(unsafe.Pointer(unsafe.SliceData((*buf)[:1])))
		mem, err := p.Encode(*buf, base, fds, report)
		if err != nil {
			return nil, err
		}
		if addressOf(mem) == base {
			return mem, nil
		}
		*buf = mem // it had to grow: once more, at the new place
	}
}

// Where no file of ours may be executed, the stage is a copy of the host program, made by clone without CLONE_VM, that
// gives back everything but the interpreter and its program before it does anything else. So it holds nothing of the
// host's memory, as if it had been executed: no limit or attribute of the stage reaches the host, and nobody in the
// container reads the host's memory in it. It costs what copying the host's page tables costs, some 8 ms for each GiB.
//
// A host program linked with a C library that has registered restartable sequences (rseq(2)) cannot give its memory
// back, since the kernel writes there; the copy then lasts until the command is executed.

// copyName is what Probe calls it.
const copyName = "copy of the host program"

// copied is set when the last stage was a copy.
var copied atomic.Bool

// taskSizes are ends of the address space by architecture and page tables. An end beyond the real one is EINVAL, and the
// others then unmap what is left.
var taskSizes = []uint64{1<<56 - 4096, 1 << 52, 1 << 48, 1<<47 - 4096, 1 << 47, 1 << 42, 1 << 39}

// span is a range of addresses, in whole pages.
type span struct{ from, to uint64 }

func pages(from, to uintptr) span {
	size := uint64(os.Getpagesize())
	return span{uint64(from) &^ (size - 1), (uint64(to) + size - 1) &^ (size - 1)}
}

// shedProgram is what a copy does first: it lets go of the descriptors and the memory that are not the stage's. The last
// operation is one from which the stage's program is jumped to.
func shedProgram(c Config, in *inputs, keep []span) (*program.Program, error) {
	b := program.NewBuilder(false)
	emitSelfMaps(b, c)
	b.Step("close", "what is not the stage's")
	stays := append(slices.Clone(in.fds), in.host)
	slices.Sort(stays)
	next := 0
	for _, fd := range slices.Compact(stays) {
		if fd > next {
			b.Call(unix.SYS_CLOSE_RANGE, "close_range", program.Int(next), program.Int(fd-1), program.Int(0))
		}
		next = fd + 1
	}
	b.CloseRange(uint(next), 0)
	emitPlaces(b, c)
	b.Step("reset", "signal handlers")
	for sig := 1; sig <= 64; sig++ {
		if sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
			b.Call(unix.SYS_RT_SIGACTION, "rt_sigaction", program.Int(sig), program.Bytes(make([]byte, 32), "{sa_handler=SIG_DFL}"), program.Null(), program.Int(8))
		}
	}
	if keep != nil {
		b.Step("give back", "the host's memory")
		emitUnmap(b, keep)
	}
	b.Step("begin", "the stage")
	b.Call(unix.SYS_GETPID, "getpid")
	return b.Build()
}

// emitUnmap unmaps all but the given ranges, which are in order.
func emitUnmap(b *program.Builder, keep []span) {
	at := uint64(0)
	for _, k := range keep {
		if k.from > at {
			b.Call(unix.SYS_MUNMAP, "munmap", program.Int(at), program.Int(k.from-at))
		}
		at = k.to
	}
	for _, end := range taskSizes {
		if end > at {
			b.Call(unix.SYS_MUNMAP, "munmap", program.Int(at), program.Int(end-at)).Ignore(unix.EINVAL)
		}
	}
}

// hasRseq reports whether the calling thread has registered restartable sequences: the kernel then answers EINVAL to
// another registration before it looks at the address, otherwise EFAULT to an address of its own.
func hasRseq() bool {
	_, _, e := unix.RawSyscall6(unix.SYS_RSEQ, ^uintptr(4095), 32, 0, 0, 0, 0)
	return e != unix.EFAULT && e != unix.ENOSYS
}

// maxShed is more than a program of shedProgram takes.
const maxShed = 64 << 10

// place is where the programs of a copy stand in its memory.
type place struct {
	shed       *program.Program
	base, main uintptr
}

// fault turns a failure record of a copy that performs p into an error.
func (l *place) fault(p *program.Program, addr uint64, errno unix.Errno) error {
	if uintptr(addr) < l.main {
		return l.shed.Error(program.OpIndex(l.base, addr), errno)
	}
	return p.Error(program.OpIndex(l.main, addr), errno)
}

// startCopy makes a stage that is a copy of this program.
func startCopy(c Config, in *inputs) (*Child, error) {
	stage, err := c.Program.Encode(nil, 0, in.fds, in.host)
	if err != nil {
		return nil, err
	}
	size := maxShed + len(stage)
	if c.Program.GoesOn() {
		size += program.MaxNext
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(mem)
	l := &place{base: addressOf(mem), main: addressOf(mem) + maxShed}
	if stage, err = c.Program.Encode(stage, l.main, in.fds, in.host); err != nil {
		return nil, err
	}
	copy(mem[maxShed:], stage)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var keep []span
	if !hasRseq() {
		keep = []span{pages(interpAddr(), interpAddr()+maxCode), pages(l.base, l.base+uintptr(len(mem)))}
		slices.SortFunc(keep, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	}
	if l.shed, err = shedProgram(c, in, keep); err != nil {
		return nil, err
	}
	shed, err := l.shed.Encode(nil, l.base, []int{in.host}, in.host)
	if err != nil {
		return nil, err
	}
	if len(shed) > maxShed {
		return nil, fmt.Errorf("a program of %d bytes where %d have room", len(shed), maxShed)
	}
	l.shed.Continue(shed, l.base, program.Entry(l.main))
	copy(mem, shed)
	pid, pidfd, err := cloneAt(l.base, cloneFlags(c.Namespaces, c.Cgroup)&^(unix.CLONE_VM|unix.CLONE_VFORK), c.Cgroup)
	if err != nil {
		return nil, err
	}
	return &Child{Pid: pid, Pidfd: pidfd, place: l, next: program.NextBase(l.main, len(stage))}, nil
}
