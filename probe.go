package caisson

import (
	"context"
	"fmt"
)

// Answer is what a probe found out. The zero Answer is Unknown.
type Answer int

const (
	// Unknown: it could not be told.
	Unknown Answer = iota
	// Yes: it works.
	Yes
	// No: it does not.
	No
)

// String returns "yes", "no" or "unknown".
func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// MarshalText returns what String returns.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Ability is one thing that this machine and user can or cannot do.
type Ability struct {
	// Area groups abilities: "system", "namespaces", "cgroups", "root filesystem", "security", "engine".
	Area string `json:"area"`
	// Name is what it is: "user namespace", "memory limit".
	Name string `json:"name"`
	// Answer is whether it works.
	Answer Answer `json:"answer"`
	// Detail says how, where it works.
	Detail string `json:"detail,omitempty"`
	// Reason says why it does not work, and Remedy what would help.
	Reason string `json:"reason,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// String returns one line.
func (a Ability) String() string {
	s := fmt.Sprintf("%s: %s: %s", a.Area, a.Name, a.Answer)
	for _, t := range []string{a.Detail, a.Reason} {
		if t != "" {
			s += ": " + t
		}
	}
	if a.Remedy != "" {
		s += " (" + a.Remedy + ")"
	}
	return s
}

// Probe finds out, by trying, what this machine and user can do: kernel, namespaces, id ranges, cgroup controllers,
// security, and the calls the start engine prefers. It leaves nothing behind and takes some milliseconds. On other
// systems than Linux the answer is one line that says so.
func Probe(ctx context.Context) []Ability { return probe(ctx) }
