package caisson

import (
	"io"
	"os"
	"path/filepath"
)

// validateDetach refuses what a container that outlives its program cannot have.
func (s *spec) validateDetach() (faults []error) {
	d := &s.detach
	if len(d.labels) > maxLabels {
		faults = append(faults, invalid("WithLabels", "%d labels; at most %d", len(d.labels), maxLabels))
	}
	for k, v := range d.labels {
		if k == "" || len(k)+len(v) > maxLabel {
			faults = append(faults, invalid("WithLabels", "%.40q: a label has a name and at most %d bytes", k, maxLabel))
		}
	}
	if d.dir != "" && (!filepath.IsAbs(d.dir) || filepath.Clean(d.dir) != d.dir || d.dir == "/") {
		faults = append(faults, invalid("WithStateDir", "%q is not a clean absolute path", d.dir))
	}
	if d.autoRemove && !d.alone() {
		faults = append(faults, invalid("WithAutoRemove", "it needs WithDetached(true), without a monitor"))
	}
	if !d.on {
		return faults
	}
	if s.id == "" {
		faults = append(faults, invalid("WithDetached", "WithID is missing: without an id the container could not be found again"))
	}
	if !d.alone() {
		return faults
	}
	p := &s.process
	const living = "needs a program that lives; a detached container outlives it"
	for _, o := range []struct {
		set  bool
		name string
	}{
		{!isFile(p.stdin), "WithStdin"}, {!isFile(p.stdout), "WithStdout"}, {!isFile(p.stderr), "WithStderr"},
	} {
		if o.set {
			faults = append(faults, invalid(o.name, "copying %s: give an *os.File", living))
		}
	}
	for _, o := range []struct {
		set  bool
		name string
	}{
		{p.terminal && p.engine.console == "" && !p.engine.unkept, "WithTerminal"}, {p.timeout != 0, "WithTimeout"}, {p.cpuTime != 0, "WithCPUTime"}, {p.outputLimit != 0, "WithOutputLimit"},
		{p.ctx != nil, "WithContext"}, {p.cancel != nil, "WithCancel"}, {s.trace != nil, "WithTrace"},
		{p.notify.handler != nil, "WithSeccompNotify"}, {p.notify.recorder != nil, "WithSeccompRecorder"},
		{s.restart.Mode != RestartNo, "WithRestart"}, {s.log != nil, "WithLog"},
		{s.health != nil, "WithHealthCheck"}, {s.attachable, "WithAttachable"},
	} {
		if o.set {
			faults = append(faults, invalid(o.name, living))
		}
	}
	return faults
}

// isFile reports whether a stream is nothing or a file.
func isFile(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case *os.File:
		return v != nil
	case io.Reader, io.Writer:
		return false
	}
	return false
}
