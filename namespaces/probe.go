package namespaces

import "fmt"

// Answer is what a probe found out. The zero Answer is [Unknown].
type Answer uint8

const (
	Unknown Answer = iota // the probe could not tell
	Yes
	No
)

// String returns "could not tell", "yes" or "no".
func (a Answer) String() string {
	switch a {
	case Unknown:
		return "could not tell"
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return fmt.Sprintf("invalid answer %d", uint8(a))
}

// Verdict is an answer with its reason.
type Verdict struct {
	Answer Answer
	Err    error  // why not, or why it could not be told; nil for Yes
	Remedy string // what would help, where something is known
}

// Probed says whether a namespace of one kind can be made here.
type Probed struct {
	Kind Kind
	// Direct: the calling process can make one as it is.
	Direct Verdict
	// InUser: it can make one within a new user namespace of its own, with a single-id map. For [User] itself: it can
	// make one within another.
	InUser Verdict
}

// Available reports whether the kind can be made in either way.
func (p Probed) Available() bool { return p.Direct.Answer == Yes || p.InUser.Answer == Yes }

// Report is what [Probe] found out, a line for each kind in the order of [All].
type Report []Probed

// Get returns the line for kind k, with unknown answers if there is none.
func (r Report) Get(k Kind) Probed {
	for _, p := range r {
		if p.Kind == k {
			return p
		}
	}
	return Probed{Kind: k}
}

// Available returns the kinds that can be made directly or within a new user namespace.
func (r Report) Available() Kinds {
	var s Kinds
	for _, p := range r {
		if p.Available() {
			s = s.With(p.Kind)
		}
	}
	return s
}
