package state

import (
	"encoding/binary"
	"fmt"
	"time"
)

// The status file is written by processes that can do no more than system calls: a stage and a keeper. Each part is
// written at once; a part that lies behind the end of the file, or is zero, has not happened. Numbers are 64 bits in the byte
// order of the machine, on which alone the file means anything.
//
//	0    "caisson-status 1"                     by the program that makes the container
//	16   1, seconds, nanoseconds                by the stage, when it is released to its command: CLOCK_REALTIME
//	40   1, seconds, nanoseconds                by the keeper, when it has collected the container's first process
//	64   why: 0, or 1 if its time was over
//	72   siginfo_t of waitid(2)                 128 bytes
//	200  struct rusage of waitid(2)             144 bytes
const (
	statusMagic = "caisson-status 1"

	// ReleasedAt and EndedAt are where the parts begin, and their sizes.
	ReleasedAt, ReleasedSize = 16, 24
	EndedAt, EndedSize       = 40, 304
	// SiginfoAt and RusageAt are within the second part; so is TimedOutAt.
	TimedOutAt, SiginfoAt, RusageAt = 24, 32, 160

	statusSize = EndedAt + EndedSize
)

// Status is what the status file tells.
type Status struct {
	Released time.Time // zero: the command was not begun
	Ended    time.Time // zero: it is not known to have ended
	TimedOut bool
	Wait     uint32        // status in the form of wait(2)
	CPU      time.Duration // of the first process and those that it collected
}

// NewStatus is the content of a status file at the beginning.
func NewStatus() []byte { return append([]byte(statusMagic), make([]byte, ReleasedSize)...) }

// Released is the part of a status file that says when the command was begun. It belongs at [ReleasedAt].
func Released(t time.Time) []byte {
	b := binary.NativeEndian.AppendUint64(nil, 1)
	b = binary.NativeEndian.AppendUint64(b, uint64(t.Unix()))
	return binary.NativeEndian.AppendUint64(b, uint64(t.Nanosecond()))
}

// ParseStatus reads the content of a status file.
func ParseStatus(b []byte) (Status, error) {
	var s Status
	if len(b) < EndedAt || len(b) > statusSize || string(b[:len(statusMagic)]) != statusMagic {
		return s, fmt.Errorf("%w: %d bytes of status", ErrCorrupt, len(b))
	}
	s.Released = stamp(b[ReleasedAt:])
	if len(b) < statusSize {
		return s, nil // a part that is not whole has not happened
	}
	end := b[EndedAt:]
	if s.Ended = stamp(end); s.Ended.IsZero() {
		return s, nil // nor has one without its mark
	}
	s.TimedOut = word(end[TimedOutAt:]) != 0
	s.Wait, _ = WaitStatus(end[SiginfoAt:RusageAt])
	for _, at := range []int{0, 16} { // user and system time, in seconds and microseconds
		t := end[RusageAt+at:]
		s.CPU += time.Duration(word(t))*time.Second + time.Duration(word(t[8:]))*time.Microsecond
	}
	return s, nil
}

func word(b []byte) int64 { return int64(binary.NativeEndian.Uint64(b)) }

// stamp reads a mark and a time.
func stamp(b []byte) time.Time {
	if word(b) != 1 {
		return time.Time{}
	}
	return time.Unix(word(b[8:]), word(b[16:]))
}

// SiginfoSize is the size of siginfo_t.
const SiginfoSize = RusageAt - SiginfoAt

// WaitStatus is the wait(2) form of the siginfo_t of waitid(2); false if it is not that of a process that has ended.
func WaitStatus(info []byte) (uint32, bool) {
	if len(info) != SiginfoSize {
		return 0, false
	}
	field := func(at int) int32 { return int32(binary.NativeEndian.Uint32(info[at:])) }
	const sigchld, exited, dumped = 17, 1, 3
	signo, code, status := field(0), field(8), field(24)
	ok := signo == sigchld && (code == exited && status >= 0 && status <= 255 || code > exited && code <= dumped && status >= 1 && status <= 64)
	return waitStatus(code, status), ok
}

// waitStatus is the wait(2) form of what waitid(2) reports: si_code and si_status.
func waitStatus(code, status int32) uint32 {
	const exited, dumped = 1, 3
	switch code {
	case exited:
		return uint32(status&0xff) << 8
	case dumped:
		return uint32(status&0x7f | 0x80)
	}
	return uint32(status & 0x7f)
}
