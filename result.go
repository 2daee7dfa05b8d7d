package caisson

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/caisson-go/caisson/cgroups"
)

// Reason says why a command ended, as far as it can be known.
type Reason int

// Reasons. The zero value is ReasonUnknown.
const (
	// ReasonUnknown: the command has ended and nothing more is known.
	ReasonUnknown Reason = iota
	// ReasonExited: it ended by itself, with an exit code.
	ReasonExited
	// ReasonSignaled: a signal ended it that was not sent for one of the reasons below.
	ReasonSignaled
	// ReasonOOM: the kernel's OOM killer ended it, or a process in the container before it failed.
	ReasonOOM
	// ReasonTimeout: it ran longer than WithTimeout allows.
	ReasonTimeout
	// ReasonCPUTime: it used more CPU time than WithCPUTime allows.
	ReasonCPUTime
	// ReasonOutputLimit: it wrote more than WithOutputLimit allows.
	ReasonOutputLimit
	// ReasonDiskLimit: it failed while its writable layer was full.
	ReasonDiskLimit
	// ReasonCanceled: the context of Run, or that given to WithContext, ended.
	ReasonCanceled
	// ReasonStopped: Stop, Kill or Close of the container ended it.
	ReasonStopped
	// ReasonUnhealthy: its health checks failed; see [HealthCheck].End.
	ReasonUnhealthy
	// ReasonCheckpointed: it was written to disk ([Container.Checkpoint]), to go on later.
	ReasonCheckpointed
)

var reasonNames = [...]string{"unknown", "exited", "signaled", "out of memory", "timed out", "CPU time limit", "output limit",
	"disk limit", "canceled", "stopped", "unhealthy", "checkpointed"}

// String returns "out of memory" and the like.
func (r Reason) String() string {
	if r < 0 || int(r) >= len(reasonNames) {
		return fmt.Sprintf("Reason(%d)", int(r))
	}
	return reasonNames[r]
}

// MarshalText returns what String returns.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (r *Reason) UnmarshalText(b []byte) error {
	i := slices.Index(reasonNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("caisson: unknown reason %q", b)
	}
	*r = Reason(i)
	return nil
}

// Result is how a command ended and what it used. Figures that could not be had, because no cgroup was
// available or the kernel does not count them, say so: see [cgroups.Value].
type Result struct {
	// ExitCode is the command's exit code, 0 to 255; -1 if a signal ended it or the status is unknown.
	ExitCode int
	// Signal is the signal that ended it, or 0.
	Signal syscall.Signal
	// Core reports that it dumped core.
	Core bool
	// Reason is why it ended.
	Reason Reason
	// OOMKills counts processes of the container that the OOM killer ended.
	OOMKills cgroups.Value[uint64]

	// Started is when the start began, or when a created container was released (zero if it never was), Ended when
	// the end was seen; Wall is the time between.
	Started, Ended time.Time
	Wall           time.Duration
	// CPU is the CPU time used by all processes of the container, or by the command and the children it waited
	// for where there is no cgroup.
	CPU cgroups.Value[time.Duration]
	// PeakMemory is the most memory used at one time, in bytes.
	PeakMemory cgroups.Value[uint64]
	// PeakPids is the highest number of processes and threads.
	PeakPids cgroups.Value[uint64]
	// ReadBytes and WriteBytes count what came from and went to block devices.
	ReadBytes, WriteBytes cgroups.Value[uint64]
	// DiskUsed is what stood in the throw-away writable layer at the end, in bytes.
	DiskUsed cgroups.Value[uint64]
	// LogLost counts the entries of the log ([WithLog]) that could not be written; see [EventLogLost].
	LogLost uint64 `json:",omitempty"`
}

// Success reports whether the command ended by itself with exit code 0.
func (r *Result) Success() bool { return r.Reason == ReasonExited && r.ExitCode == 0 }

// String returns "exit status 3", "killed by signal: terminated", "out of memory", "timed out" and the like.
func (r *Result) String() string {
	switch {
	case r.Reason == ReasonExited:
		return fmt.Sprintf("exit status %d", r.ExitCode)
	case r.Reason == ReasonSignaled && r.Core:
		return "killed by signal: " + r.Signal.String() + " (core dumped)"
	case r.Reason == ReasonSignaled:
		return "killed by signal: " + r.Signal.String()
	}
	return r.Reason.String()
}

// ShellCode returns what a shell would report: the exit code, or 128 plus the signal's number.
func (r *Result) ShellCode() int {
	switch {
	case r.Signal != 0:
		return 128 + int(r.Signal)
	case r.ExitCode >= 0:
		return r.ExitCode
	}
	return 255
}
