package cgroups

import (
	"fmt"
	"time"
)

// A PressureResource is what processes stand still for want of. The zero value is invalid.
type PressureResource uint8

const (
	CPUPressure PressureResource = iota + 1
	MemoryPressure
	IOPressure
)

// String returns "cpu", "memory" or "io".
func (r PressureResource) String() string {
	switch r {
	case CPUPressure:
		return "cpu"
	case MemoryPressure:
		return "memory"
	case IOPressure:
		return "io"
	}
	return fmt.Sprintf("PressureResource(%d)", uint8(r))
}

// A PressureTrigger asks to be told when processes stood still for Stall within any Window, at most once in each Window.
// Documentation/accounting/psi.rst; Linux 5.2.
type PressureTrigger struct {
	Resource PressureResource
	Full     bool          // all processes that were not idle, instead of at least one
	Stall    time.Duration // more than 0, at most Window
	// Window is 500ms to 10s. Without CAP_SYS_RESOURCE it must be a multiple of 2s, and Linux 6.5 or later is needed.
	Window time.Duration
}

// String writes the trigger as "memory some 150ms in 2s".
func (t PressureTrigger) String() string {
	return fmt.Sprintf("%v %s %v in %v", t.Resource, t.kind(), t.Stall, t.Window)
}

func (t PressureTrigger) kind() string {
	if t.Full {
		return "full"
	}
	return "some"
}

// line is what the kernel takes, in microseconds.
func (t PressureTrigger) line() string {
	return fmt.Sprintf("%s %d %d", t.kind(), t.Stall.Microseconds(), t.Window.Microseconds())
}

const (
	minWindow = 500 * time.Millisecond
	maxWindow = 10 * time.Second
	// sparseWindow is what the windows of those without CAP_SYS_RESOURCE must be a multiple of.
	sparseWindow = 2 * time.Second
)

func (f *faults) trigger(t PressureTrigger) {
	if t.Resource < CPUPressure || t.Resource > IOPressure {
		f.add("PressureTrigger", t, "names no resource")
	}
	if t.Window < minWindow || t.Window > maxWindow {
		f.add("PressureTrigger", t, "has a window that is not within 500ms to 10s")
	}
	if t.Stall < time.Microsecond || t.Stall > t.Window {
		f.add("PressureTrigger", t, "has a stall that is not within 1µs to its window")
	}
}
