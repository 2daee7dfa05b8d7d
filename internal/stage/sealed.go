//go:build linux

package stage

import (
	"errors"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// The stage of a program that is performed again is executed from a file that is kept: nothing has to be written then.
// Such a file is shared by containers, so nobody can change it: its contents and its permission to be executed are sealed
// (memfd_create(2), F_SEAL_EXEC: Linux 6.3), and it is kept open for reading only, which keeps anybody from leasing it
// (fcntl(2), F_SETLEASE). Should it be refused all the same, the stage gets a file of its own, as it does the first time.

// maxSealed bounds how many are kept, of some 20 KiB each.
const maxSealed = 8

const (
	sealedName = "caisson-sealed-stage"
	sealExec   = 0x20 // F_SEAL_EXEC
	allSeals   = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | sealExec
)

// sealedExe is such a file.
type sealedExe struct {
	prog   *program.Program
	places int
	fd     int
	hop    *program.Program // which executes it; nil where it writes id maps
	users  int              // starts that execute it now
	gone   bool             // it is closed after the last of them
}

var sealed struct {
	mu   sync.Mutex
	list []*sealedExe // used last comes last
	not  bool         // they cannot be had here
}

// startSealed starts a stage from a kept file; nil without an error where there is none.
func startSealed(c Config, in *inputs) (*Child, error) {
	if exeMode.Load() != 0 || c.socket > 0 || !c.Program.Encoded() {
		return nil, nil
	}
	e := takeSealed(c)
	if e == nil {
		return nil, nil
	}
	var child *Child
	var err error
	if e.hop != nil && c.UIDMap == "" {
		child, err = hopBy(e.hop, c, e.fd, in)
	} else {
		child, err = hop(c, e.fd, in)
	}
	if errors.Is(err, errHopExec) {
		e.leave(true)
		return nil, nil
	}
	e.leave(false)
	if err == nil {
		copied.Store(false)
	}
	return child, err
}

// takeSealed finds the file of a program, or makes it.
func takeSealed(c Config) *sealedExe {
	sealed.mu.Lock()
	defer sealed.mu.Unlock()
	if sealed.not {
		return nil
	}
	for i, e := range slices.Backward(sealed.list) {
		if e.prog == c.Program && e.places == c.places() {
			copy(sealed.list[i:], sealed.list[i+1:])
			sealed.list[len(sealed.list)-1] = e
			e.users++
			return e
		}
	}
	fd, err := sealedFile(c)
	if err != nil {
		sealed.not = !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) && !errors.Is(err, unix.ENOMEM)
		return nil
	}
	if len(sealed.list) == maxSealed {
		sealed.list[0].drop()
	}
	e := &sealedExe{prog: c.Program, places: c.places(), fd: fd, users: 1}
	if c.UIDMap == "" {
		if e.hop, err = hopProgram(c, strconv.Itoa(fd)); err != nil {
			unix.Close(fd)
			return nil
		}
	}
	sealed.list = append(sealed.list, e)
	return e
}

// drop forgets a file. The caller holds the lock.
func (e *sealedExe) drop() {
	if i := slices.Index(sealed.list, e); i >= 0 {
		sealed.list = slices.Delete(sealed.list, i, i+1)
	}
	e.gone = true
	if e.users == 0 {
		unix.Close(e.fd)
	}
}

// leave ends a use. A file that was refused is not kept.
func (e *sealedExe) leave(refused bool) {
	sealed.mu.Lock()
	defer sealed.mu.Unlock()
	e.users--
	switch {
	case refused && !e.gone:
		e.drop()
	case e.gone && e.users == 0:
		unix.Close(e.fd)
	}
}

// sealedFile makes the file and opens it for reading only.
func sealedFile(c Config) (int, error) {
	fds, report := c.numbers()
	w, _, err := writeExe(exeMaker{"sealed memfd", sealable}, c.Program, fds, report)
	if err != nil {
		return -1, err
	}
	defer unix.Close(w)
	if _, err := unix.FcntlInt(uintptr(w), unix.F_ADD_SEALS, allSeals); err != nil {
		return -1, err
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(w), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil || fd >= c.above() {
		return fd, err
	}
	defer unix.Close(fd)
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, c.above())
}

func sealable() (int, func(int) (int, error), error) {
	fd, err := unix.MemfdCreate(sealedName, unix.MFD_CLOEXEC|unix.MFD_EXEC|unix.MFD_ALLOW_SEALING)
	return fd, same, err
}
