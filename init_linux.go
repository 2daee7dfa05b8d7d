package caisson

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
)

// initEnd is the pipe by which the first process of a container tells how the command ended, where they are two.
type initEnd struct {
	read, write, image int // -1: closed, or there is none
	may                atomic.Bool
}

// planInit decides about a first process that is not the command.
func (r *running) planInit() (err error) {
	if r.m.init = r.spec.init; !r.m.init {
		return nil
	}
	r.m.initImage = true
	if r.m.filter != nil {
		r.m.initFilter, err = initFilter()
	}
	r.applied("init", "process 1 collects orphans and passes signals on")
	return err
}

// initFilter leaves a first process what it does. It is one value for ever, by whose address programs are remembered.
var initFilter = sync.OnceValues(func() (*seccomp.Program, error) {
	arch, err := seccomp.Native()
	if err != nil {
		return nil, err
	}
	base, err := seccomp.Default(arch, 0)
	if err != nil {
		return nil, err
	}
	return seccomp.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess, Architectures: base.Architectures[:1],
		Syscalls: []specs.LinuxSyscall{{Names: stage.InitCalls, Action: specs.ActAllow}}}, arch)
})

// openInitEnd makes the pipe.
func (r *running) openInitEnd() error {
	if !r.m.init {
		return nil
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	e := &initEnd{read: p[0], write: p[1], image: -1}
	r.initEnd = e
	r.undo.add(func() error { e.launched(true); return nil })
	e.may.Store(!r.m.create)
	if err := r.openInitImage(e); err != nil {
		return err
	}
	for _, fd := range []*int{&e.read, &e.write, &e.image} { // above the places that files are put in
		if *fd < 0 {
			continue
		}
		high, err := unix.FcntlInt(uintptr(*fd), unix.F_DUPFD_CLOEXEC, 3+len(r.spec.process.extraFiles))
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		unix.Close(*fd)
		*fd = high
	}
	r.fds[inputInitTells], r.fds[inputInitTold], r.fds[inputInitImage] = e.write, e.read, e.image
	return nil
}

// openInitImage makes the file that the first process executes, where that is possible.
func (r *running) openInitImage(e *initEnd) error {
	which := 0
	if r.m.initFilter != nil {
		which = 1
	}
	p, err := initPrograms[which]()
	if err != nil {
		return err
	}
	if testHookInitImage != nil {
		err = testHookInitImage()
	}
	fd := -1
	if err == nil {
		fd, err = stage.Image(p)
	}
	switch {
	case errors.Is(err, stage.ErrExecForbidden):
		r.m.initImage = false
	case err != nil:
		return err
	default:
		e.image = fd
	}
	return nil
}

// testHookInitImage lets tests forbid the file.
var testHookInitImage func() error

// launched gives up what the process has now that was to have it; recorded says that its keeper has the other end.
func (e *initEnd) launched(recorded bool) {
	if e == nil {
		return
	}
	closeFD(&e.write)
	closeFD(&e.image)
	if recorded {
		closeFD(&e.read)
	}
}

// freed notes that the command may have been executed.
func (e *initEnd) freed() {
	if e != nil {
		e.may.Store(true)
	}
}

func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

// told reads how the command ended; false if the first process was killed before that.
func (e *initEnd) told() (unix.WaitStatus, bool) {
	var buf [state.SiginfoSize]byte
	for {
		n, err := unix.Read(e.read, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != len(buf) {
			return 0, false
		}
		st, ok := state.WaitStatus(buf[:])
		return unix.WaitStatus(st), ok
	}
}

// initEnded puts how the command ended in the place of how the first process did, and returns what is left of err.
func (r *running) initEnded(res *Result, err error) error {
	e := r.initEnd
	if e == nil {
		return err
	}
	st, ok := e.told()
	r.diedEarly = !r.ran.Load() && (!ok || !e.may.Load())
	if !ok && err == nil && res.Signal == 0 {
		*res = Result{ExitCode: -1, CPU: res.CPU}
		return &Error{Op: "wait", ID: r.spec.id, Err: fmt.Errorf("%w: the init ended before the command (a fault in caisson: please report it)", ErrStatusUnknown)}
	}
	if !ok {
		return err
	}
	cpu := res.CPU
	*res = Result{ExitCode: -1, CPU: cpu}
	res.setStatus(st)
	return nil
}
