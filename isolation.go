package caisson

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Measure is one means of containment and whether it holds in a container.
type Measure struct {
	// Name is the measure: "user namespace", "memory limit", "seccomp".
	Name string
	// Applied tells whether it holds.
	Applied bool
	// Detail is its value where it holds ("64 MiB", "uids 0..65535 are 100000..165535 outside").
	Detail string
	// Reason says why it does not hold, and Remedy what would help; both are empty where it holds.
	Reason, Remedy string
}

// String returns one line.
func (m Measure) String() string {
	if m.Applied {
		return m.Name + ": " + m.Detail
	}
	s := m.Name + ": not applied: " + m.Reason
	if m.Remedy != "" {
		s += " (" + m.Remedy + ")"
	}
	return s
}

// Isolation lists what contains a container, and which defaults could not be applied on this machine.
type Isolation []Measure

// Missing returns the measures that do not hold.
func (l Isolation) Missing() Isolation {
	var out Isolation
	for _, m := range l {
		if !m.Applied {
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
		if m.Applied {
			fmt.Fprintf(tw, "  %s\t%s\n", m.Name, m.Detail)
			continue
		}
		fmt.Fprintf(tw, "! %s\tnot applied: %s\n", m.Name, m.Reason)
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
