package caisson

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Status says whether a measure holds. The zero Status is invalid.
type Status int

const (
	// Applied: the measure holds.
	Applied Status = iota + 1
	// Declined: it was not asked for, or the options left it out.
	Declined
	// Unavailable: it is a default, and this machine or user cannot have it.
	Unavailable
)

// String returns "applied" and the like.
func (s Status) String() string {
	switch s {
	case Applied:
		return "applied"
	case Declined:
		return "declined"
	case Unavailable:
		return "unavailable"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// MarshalText returns what String returns.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Measure is one means of containment and whether it holds in a container.
type Measure struct {
	// Name is the measure: "user namespace", "memory limit", "seccomp".
	Name string
	// Status tells whether it holds.
	Status Status
	// Detail is its value where it holds ("64 MiB", "uids 0..65535 are 100000..165535 outside").
	Detail string
	// Reason says why it does not hold, and Remedy what would help; both are empty where it holds.
	Reason, Remedy string
}

// String returns one line.
func (m Measure) String() string {
	if m.Status == Applied {
		return m.Name + ": " + m.Detail
	}
	s := m.Name + ": " + m.Status.String() + ": " + m.Reason
	if m.Remedy != "" {
		s += " (" + m.Remedy + ")"
	}
	return s
}

// Isolation lists what contains a container, and which defaults could not be applied on this machine.
type Isolation []Measure

// Missing returns the measures that are unavailable on this machine; those that were left out on purpose are not among
// them.
func (l Isolation) Missing() Isolation {
	var out Isolation
	for _, m := range l {
		if m.Status == Unavailable {
			out = append(out, m)
		}
	}
	return out
}

// Get returns the measure with a name.
func (l Isolation) Get(name string) (Measure, bool) {
	for _, m := range l {
		if m.Name == name {
			return m, true
		}
	}
	return Measure{}, false
}

// WriteTo prints the list as a table for people.
func (l Isolation) WriteTo(w io.Writer) (int64, error) {
	c := &countWriter{w: w}
	tw := tabwriter.NewWriter(c, 0, 0, 2, ' ', 0)
	for _, m := range l {
		if m.Status == Applied {
			fmt.Fprintf(tw, "  %s\t%s\n", m.Name, m.Detail)
			continue
		}
		mark := "-"
		if m.Status == Unavailable {
			mark = "!"
		}
		fmt.Fprintf(tw, "%s %s\t%s: %s\n", mark, m.Name, m.Status, m.Reason)
		if m.Remedy != "" {
			fmt.Fprintf(tw, "  \t  → %s\n", m.Remedy)
		}
	}
	err := tw.Flush()
	return c.n, err
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
