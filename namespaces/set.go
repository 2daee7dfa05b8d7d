package namespaces

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Set says for each kind which namespace a process gets, and what is set up in the new ones. The zero Set is
// a new namespace of every kind, except that a new time namespace is only made when [Set.TimeOffsets] asks for
// it: without offsets it would isolate nothing.
//
// A new mount namespace is made private, so that nothing mounted inside reaches the host; it begins as a copy of
// the caller's. A new network namespace has no way out and its loopback device is down until someone raises it. The
// first process in a new pid namespace is its init: when it ends, all others in it are killed.
type Set struct {
	Mount, PID, Net, IPC, UTS, User, Cgroup, Time Namespace

	// TimeOffsets shift the clocks of a new time namespace. They need a Time that is new.
	TimeOffsets TimeOffsets

	// Hostname and Domainname are set in a new UTS namespace, at most 64 bytes each. Empty: they stay as they
	// are in the caller's.
	Hostname, Domainname string
}

// TimeOffsets are added to the clocks of a new time namespace, see time_namespaces(7). They are given in
// nanoseconds and may be negative, but a clock may not become negative, nor may it exceed about 146 years.
type TimeOffsets struct {
	Monotonic time.Duration // CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW
	Boottime  time.Duration // CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM; also /proc/uptime
}

// String returns the text that /proc/PID/timens_offsets takes.
func (o TimeOffsets) String() string {
	line := func(clock string, d time.Duration) string {
		// The kernel takes nanoseconds from 0 to 999999999 only, so seconds are rounded down.
		sec, nsec := int64(d/time.Second), int64(d%time.Second)
		if nsec < 0 {
			sec, nsec = sec-1, nsec+int64(time.Second)
		}
		return fmt.Sprintf("%s %d %d\n", clock, sec, nsec)
	}
	return line("monotonic", o.Monotonic) + line("boottime", o.Boottime)
}

// HostSet returns a Set in which every namespace is the caller's own, for callers that want to list what is to
// be isolated rather than what is not.
func HostSet() Set {
	h := Host()
	return Set{Mount: h, PID: h, Net: h, IPC: h, UTS: h, User: h, Cgroup: h, Time: h}
}

// Get returns the wish for kind k, with the default of the kind filled in: the result is never the default. The
// wish for an invalid kind is invalid too.
func (s *Set) Get(k Kind) Namespace {
	f := s.field(k)
	if f == nil {
		return Namespace{how: howFile + 1}
	}
	switch {
	case !f.IsDefault():
		return *f
	case k == Time && s.TimeOffsets == TimeOffsets{}:
		return Host()
	}
	return New()
}

// Put sets the wish for kind k. An invalid kind is ignored.
func (s *Set) Put(k Kind, n Namespace) {
	if f := s.field(k); f != nil {
		*f = n
	}
}

func (s *Set) field(k Kind) *Namespace {
	switch k {
	case Mount:
		return &s.Mount
	case PID:
		return &s.PID
	case Net:
		return &s.Net
	case IPC:
		return &s.IPC
	case UTS:
		return &s.UTS
	case User:
		return &s.User
	case Cgroup:
		return &s.Cgroup
	case Time:
		return &s.Time
	}
	return nil
}

// New returns the kinds of which a new namespace is made.
func (s *Set) New() Kinds { return s.kinds(Namespace.IsNew) }

// Joined returns the kinds of which an existing namespace is joined.
func (s *Set) Joined() Kinds { return s.kinds(Namespace.IsJoin) }

func (s *Set) kinds(is func(Namespace) bool) Kinds {
	var l Kinds
	for _, k := range All() {
		if is(s.Get(k)) {
			l = l.With(k)
		}
	}
	return l
}

// Validate judges the wish itself, without a look at the machine, and returns all faults joined. Each matches
// [ErrInvalid].
func (s *Set) Validate() error {
	var faults []error
	for _, k := range All() {
		if err := s.Get(k).validate(k); err != nil {
			faults = append(faults, err)
		}
	}
	if (s.TimeOffsets != TimeOffsets{}) && !s.Get(Time).IsNew() {
		faults = append(faults, invalid("TimeOffsets", "offsets need a new time namespace, not %q", s.Time))
	}
	faults = append(faults, s.checkName("Hostname", s.Hostname), s.checkName("Domainname", s.Domainname))
	return errors.Join(faults...)
}

// checkName judges a host or domain name. The limit is __NEW_UTS_LEN of sethostname(2).
func (s *Set) checkName(field, name string) error {
	switch {
	case name == "":
		return nil
	case len(name) > 64:
		return invalid(field, "%d bytes are more than 64", len(name))
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return invalid(field, "%q holds a space or control character", name)
	case !s.Get(UTS).IsNew():
		// Also refused for a joined namespace: the name would change for all who are in it.
		return invalid(field, "a name needs a new uts namespace, not %q", s.UTS)
	}
	return nil
}

// String returns the wishes in one line: "mount=new pid=new network=host ...".
func (s *Set) String() string {
	var w []string
	for _, k := range All() {
		w = append(w, k.String()+"="+s.Get(k).String())
	}
	return strings.Join(w, " ")
}
