package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What a filter returns: the action in the upper half, data for it in the
// lower (SECCOMP_RET_*, include/uapi/linux/seccomp.h).
const (
	RetKillProcess uint32 = 0x80000000
	RetKillThread  uint32 = 0x00000000
	RetTrap        uint32 = 0x00030000 // SIGSYS
	RetErrno       uint32 = 0x00050000 // data: the errno, at most 4095
	RetNotify      uint32 = 0x7fc00000 // SECCOMP_RET_USER_NOTIF, Linux 5.0
	RetTrace       uint32 = 0x7ff00000 // data: PTRACE_GETEVENTMSG's answer
	RetLog         uint32 = 0x7ffc0000
	RetAllow       uint32 = 0x7fff0000

	RetAction uint32 = 0xffff0000 // mask of the action
	RetData   uint32 = 0x0000ffff // mask of the data
)

// The two errnos a filter made here answers of its own accord, the same on
// every architecture with a table.
const (
	eperm  = 1
	enosys = 38
)

// maxErrno is the highest errno the kernel passes on; it cuts higher ones.
const maxErrno = 4095

// parseAction turns an action and its errno into a return value. nil stands
// for the default errno, EPERM. A profile that gives an errno to an action
// that has none is refused, as the specification demands.
func parseAction(action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	ret, err := actionCode(action)
	if err != nil {
		return 0, err
	}
	limit := uint(maxErrno)
	switch ret {
	case RetErrno:
	case RetTrace:
		limit = uint(RetData)
	default:
		if errno != nil {
			return 0, fmt.Errorf("errnoRet %d: %s takes none: %w", *errno, action, ErrInvalid)
		}
		return ret, nil
	}
	if errno == nil {
		return ret | eperm, nil
	}
	if *errno > limit {
		return 0, fmt.Errorf("errnoRet %d: above %d, the most %s takes: %w", *errno, limit, action, ErrInvalid)
	}
	return ret | uint32(*errno), nil
}

func actionCode(action specs.LinuxSeccompAction) (uint32, error) {
	switch action {
	case specs.ActKill, specs.ActKillThread:
		return RetKillThread, nil
	case specs.ActKillProcess:
		return RetKillProcess, nil
	case specs.ActTrap:
		return RetTrap, nil
	case specs.ActErrno:
		return RetErrno, nil
	case specs.ActTrace:
		return RetTrace, nil
	case specs.ActAllow:
		return RetAllow, nil
	case specs.ActLog:
		return RetLog, nil
	case specs.ActNotify:
		return RetNotify, nil
	case "":
		return 0, fmt.Errorf("no action: %w", ErrInvalid)
	}
	return 0, fmt.Errorf("action %q: unknown: %w", string(action), ErrInvalid)
}

// refuses reports whether ret keeps the call from being made and leaves
// nobody who could make it in its place. TRACE and NOTIFY hand the call to a
// supervisor, which can answer ENOSYS itself.
func refuses(ret uint32) bool {
	switch ret & RetAction {
	case RetKillProcess, RetKillThread, RetTrap, RetErrno:
		return true
	}
	return false
}
