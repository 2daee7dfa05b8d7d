package seccomp

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Flags of seccomp(2), SECCOMP_SET_MODE_FILTER (include/uapi/linux/seccomp.h).
const (
	FlagTsync            uintptr = 1 << 0 // all threads of the process, Linux 3.17
	FlagLog              uintptr = 1 << 1 // log all answers but ALLOW, Linux 4.14
	FlagSpecAllow        uintptr = 1 << 2 // no speculative-store-bypass mitigation, Linux 4.17
	FlagNewListener      uintptr = 1 << 3 // return a listener, Linux 5.0
	FlagTsyncEsrch       uintptr = 1 << 4 // let TSYNC go with NEW_LISTENER, Linux 5.7
	FlagWaitKillableRecv uintptr = 1 << 5 // once received, only fatal signals interrupt, Linux 5.19
)

// parseFlags returns the profile's flags. None are added: a profile without
// flags gets the kernel's defaults.
func parseFlags(names []specs.LinuxSeccompFlag) (uintptr, error) {
	var flags uintptr
	var faults []error
	for i, name := range names {
		switch name {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			flags |= FlagTsync
		case specs.LinuxSeccompFlagLog:
			flags |= FlagLog
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= FlagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			flags |= FlagWaitKillableRecv
		default:
			faults = append(faults, fmt.Errorf("flags[%d]: flag %q: unknown: %w", i, string(name), ErrInvalid))
		}
	}
	return flags, errors.Join(faults...)
}

// listen fits the flags to whether there will be a listener: the kernel
// refuses WAIT_KILLABLE_RECV without one, and TSYNC with one unless
// TSYNC_ESRCH says how errors are told from file descriptors.
func listen(flags uintptr, notify bool) uintptr {
	if !notify {
		return flags &^ FlagWaitKillableRecv
	}
	if flags&FlagTsync != 0 {
		flags |= FlagTsyncEsrch
	}
	return flags | FlagNewListener
}
