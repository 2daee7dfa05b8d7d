package cni

import (
	"errors"
	"fmt"
)

// Errors that callers match with errors.Is, beside those of package netns: netns.ErrInvalid, netns.ErrNotFound, netns.ErrUnsupported,
// netns.ErrPrivilege.
var (
	// ErrNotReady: a plugin says that it cannot serve containers at present (STATUS). It comes with the *PluginError.
	ErrNotReady = errors.New("network is not ready")
	// ErrChanged: CHECK found that the container's network is not as it was made. It comes with the *PluginError.
	ErrChanged = errors.New("network is not as it was made")
)

// Error says what failed on what, why, and what can be done about it. It unwraps to the cause.
type Error struct {
	Op     string // what was attempted
	Object string // on what
	Err    error  // the cause
	Remedy string // what would help; may be empty
}

func (e *Error) Error() string {
	s := "cni: " + e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	s += ": " + e.Err.Error()
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// PluginError is what a plugin answered instead of a result.
type PluginError struct {
	Plugin  string // its type
	Command string // ADD, DEL, CHECK, GC, STATUS or VERSION
	// Code is the plugin's, see the section "Error" of the specification; 0 if it did not answer in JSON.
	Code    uint
	Msg     string
	Details string
	// Stderr is the end of what it wrote there.
	Stderr string
	// Err is how the process ended.
	Err error
}

func (e *PluginError) Error() string {
	s := fmt.Sprintf("plugin %s, %s: ", e.Plugin, e.Command)
	switch {
	case e.Msg != "":
		s += e.Msg
	case e.Err != nil:
		s += e.Err.Error()
	}
	if e.Details != "" {
		s += ": " + e.Details
	}
	if e.Code != 0 {
		s += fmt.Sprintf(" (code %d)", e.Code)
	}
	if e.Msg == "" && e.Stderr != "" {
		s += ": " + e.Stderr
	}
	return s
}

// Unwrap returns how the process ended.
func (e *PluginError) Unwrap() error { return e.Err }
