//go:build linux

package stage

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// The descriptors of a stage. Below Config.Places are the places to which its program brings descriptors in the end: they
// are taken from the beginning, by copies of the socket, so that nothing that the program opens comes there, to be
// overwritten later. Then come the inputs in their order, at numbers that are the same in every start, so that the
// executable is the same too.
//
//	0 .. Places-1    places        Places .. above-1    inputs, and the socket to the host

// minPlaces are those of the standard streams, which the stage inherits from the host program otherwise.
const minPlaces = 3

func (c *Config) places() int { return max(c.Places, minPlaces) }

// above is the first number that the stage does not get.
func (c *Config) above() int { return c.places() + len(c.Program.Inputs()) + 1 }

// numbers are those of the inputs in the stage, and of the socket.
func (c *Config) numbers() (fds []int, report int) {
	names := c.Program.Inputs()
	fds, report = make([]int, len(names)), c.above()-1
	if c.socket > 0 {
		report = c.socket
	}
	for i, name := range names {
		fds[i] = c.places() + i
		switch {
		case name != HostInput:
		case c.socket > 0:
			fds[i] = c.socket
		default:
			report = fds[i]
		}
	}
	return fds, report
}

// inputs are the descriptors in the host. None has a number that the stage uses for another.
type inputs struct {
	fds    []int // in the order of the program's inputs
	host   int   // the stage's end of the socket
	copies []int
}

func (c *Config) inputs(theirs int) (in *inputs, err error) {
	names := c.Program.Inputs()
	in = &inputs{fds: make([]int, len(names))}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	if in.host, err = in.raise(theirs, c.above()); err != nil {
		return nil, err
	}
	for i, name := range names {
		if name == HostInput {
			in.fds[i] = in.host
			continue
		}
		fd, ok := c.Files[name]
		if !ok {
			return nil, fmt.Errorf("%w: no file for %q", program.ErrInputs, name)
		}
		if in.fds[i], err = in.raise(fd, c.above()); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// raise returns fd, or a copy of it whose number is not below least.
func (in *inputs) raise(fd, least int) (int, error) {
	if fd >= least || fd < 0 {
		return fd, nil
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, least)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	in.copies = append(in.copies, high)
	return high, nil
}

func (in *inputs) close() {
	for _, fd := range in.copies {
		unix.Close(fd)
	}
}
