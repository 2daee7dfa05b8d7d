package main

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// Request is one program to be run: the body of POST /run, and an element of that of POST /batch.
type Request struct {
	// Language and Source, or Args: a command of the root filesystem with its arguments.
	Language string   `json:"language,omitempty"`
	Source   string   `json:"source,omitempty"`
	Args     []string `json:"args,omitempty"`
	// Stdin is the standard input.
	Stdin string `json:"stdin,omitempty"`
	// Files are put into the working directory, by names without "..".
	Files map[string]string `json:"files,omitempty"`
	// Want, if given, is the right answer; white space at the end of lines and of the whole does not matter.
	Want *string `json:"want,omitempty"`
	// Limits that are left out, or 0, are the defaults.
	Limits Limits `json:"limits"`
}

// Limits are what a program may use.
type Limits struct {
	CPUMillis   int64 `json:"cpu_ms,omitempty"`       // processor time of all its processes
	WallMillis  int64 `json:"wall_ms,omitempty"`      // time in all
	MemoryBytes int64 `json:"memory_bytes,omitempty"` // of all its processes and files
	Processes   int64 `json:"processes,omitempty"`    // and threads
	OutputBytes int64 `json:"output_bytes,omitempty"` // standard output and error together
}

var (
	defaultLimits = Limits{CPUMillis: 2000, WallMillis: 6000, MemoryBytes: 128 << 20, Processes: 32, OutputBytes: 64 << 10}
	mostLimits    = Limits{CPUMillis: 30_000, WallMillis: 60_000, MemoryBytes: 1 << 30, Processes: 256, OutputBytes: 4 << 20}
	compileLimits = Limits{CPUMillis: 20_000, WallMillis: 30_000, MemoryBytes: 512 << 20, Processes: 64, OutputBytes: 16 << 20}
)

// Verdicts.
const (
	accepted     = "accepted"
	wrongAnswer  = "wrong answer"
	timeLimit    = "time limit exceeded"
	memoryLimit  = "memory limit exceeded"
	outputLimit  = "output limit exceeded"
	runtimeError = "runtime error"
	compileError = "compile error"
	internal     = "internal error"
)

var allVerdicts = []string{accepted, wrongAnswer, timeLimit, memoryLimit, outputLimit, runtimeError, compileError, internal}

// Response tells how a program fared.
type Response struct {
	Verdict  string `json:"verdict"`
	ExitCode int    `json:"exit_code"` // -1 where there is none
	Signal   string `json:"signal,omitempty"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	// Figures of the run; null where this machine does not count them.
	WallMillis  float64  `json:"wall_ms"`
	CPUMillis   *float64 `json:"cpu_ms"`
	MemoryBytes *uint64  `json:"memory_bytes"`
	Processes   *uint64  `json:"processes"`
	// Notes say more: a limit that was reached, a limit that does not hold on this machine.
	Notes []string `json:"notes,omitempty"`
	Error string   `json:"error,omitempty"` // why, with an internal error
}

const (
	maxFiles  = 64
	maxSource = 1 << 20
)

// check judges a request and fills in what was left out.
func (r *Request) check(languages map[string]*language) error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	_, known := languages[r.Language]
	fault(r.Language != "" && !known, "language %q is not there", r.Language)
	fault(r.Language == "" && len(r.Args) == 0, "neither language nor args")
	fault(r.Language != "" && len(r.Args) > 0, "both language and args")
	fault(r.Language == "" && r.Source != "", "source without a language")
	fault(len(r.Source) > maxSource, "source has %d bytes; at most %d", len(r.Source), maxSource)
	fault(len(r.Files) > maxFiles, "%d files; at most %d", len(r.Files), maxFiles)
	for name := range r.Files {
		fault(name == "" || path.IsAbs(name) || path.Clean(name) != name || name == "." || strings.HasPrefix(name, "../") || name == ".." || strings.ContainsRune(name, 0),
			"file %q: a name has no slash at the begin, and no ..", name)
	}
	for _, a := range r.Args {
		fault(strings.ContainsRune(a, 0), "an argument has a NUL byte")
	}
	r.Limits.fill(fault)
	return errors.Join(faults...)
}

// fill replaces zeros by the defaults and refuses what is too much.
func (l *Limits) fill(fault func(bad bool, format string, args ...any)) {
	for _, f := range []struct {
		name       string
		p          *int64
		def, least int64
		most       int64
	}{
		{"cpu_ms", &l.CPUMillis, defaultLimits.CPUMillis, 10, mostLimits.CPUMillis},
		{"wall_ms", &l.WallMillis, defaultLimits.WallMillis, 10, mostLimits.WallMillis},
		{"memory_bytes", &l.MemoryBytes, defaultLimits.MemoryBytes, 4 << 20, mostLimits.MemoryBytes},
		{"processes", &l.Processes, defaultLimits.Processes, 1, mostLimits.Processes},
		{"output_bytes", &l.OutputBytes, defaultLimits.OutputBytes, 1, mostLimits.OutputBytes},
	} {
		if *f.p == 0 {
			*f.p = f.def
		}
		fault(*f.p < f.least || *f.p > f.most, "%s of %d is not in %d..%d", f.name, *f.p, f.least, f.most)
	}
}

func (l Limits) cpu() time.Duration  { return time.Duration(l.CPUMillis) * time.Millisecond }
func (l Limits) wall() time.Duration { return time.Duration(l.WallMillis) * time.Millisecond }

// sameAnswer compares as judges do: without white space at the end of lines and of the whole.
func sameAnswer(got, want string) bool {
	trim := func(s string) string {
		lines := strings.Split(s, "\n")
		for i, l := range lines {
			lines[i] = strings.TrimRight(l, " \t\r")
		}
		return strings.TrimRight(strings.Join(lines, "\n"), "\n")
	}
	return trim(got) == trim(want)
}
