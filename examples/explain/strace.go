package main

import (
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
)

// explained returns the names of the system calls in what Container.Explain wrote, from the first that the
// container's own process makes: those before it make that process, and execute it as "caisson-stage".
func explained(r io.Reader) []string {
	text, _ := io.ReadAll(r)
	var calls []string
	for line := range strings.Lines(string(text)) {
		name, args, ok := strings.Cut(line, "(")
		switch {
		case !ok || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(name, "execve") && strings.Contains(args, "caisson-stage"):
			calls = nil
		default:
			calls = append(calls, name)
		}
	}
	return calls
}

// straceLine is "PID call(arguments) = result". A call that takes long is in two lines, "PID call(arguments
// <unfinished ...>" and "PID <... call resumed>) = result".
var straceLine = regexp.MustCompile(`^(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)`)

var cloneParent = regexp.MustCompile(`CLONE_PARENT\b`)

// performed finds, in what strace -f wrote, the process that executed the container's command, and returns the calls
// that it made until then. If another one made it (clone with CLONE_PARENT) the calls of that one come first.
func performed(log string) ([]string, error) {
	calls := map[string][]string{} // of each process since it last executed a program
	parent := map[string]string{}  // who made a process by CLONE_PARENT
	cloning := map[string]bool{}   // processes in a clone with CLONE_PARENT
	for line := range strings.Lines(log) {
		m := straceLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		pid, call, rest := m[1], m[2], m[4]
		if m[3] == "(" {
			calls[pid] = append(calls[pid], call)
			cloning[pid] = call == "clone" && cloneParent.MatchString(rest)
		}
		_, result, done := strings.Cut(rest, " = ")
		switch {
		case done && call == "clone" && cloning[pid]:
			parent[result] = pid
		case done && call == "execveat" && result == "0": // the stage begins
			calls[pid] = nil
		case done && call == "execve" && result == "0" && stage(calls, parent, pid):
			return append(calls[parent[pid]], calls[pid]...), nil
		}
	}
	return nil, errors.New("strace did not see the command being executed")
}

// stage reports whether a process has set a container up: it, or the one that made it, has changed the root.
func stage(calls map[string][]string, parent map[string]string, pid string) bool {
	return slices.Contains(append(calls[parent[pid]], calls[pid]...), "pivot_root")
}
