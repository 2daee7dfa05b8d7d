package namespaces

import (
	"fmt"
	"strings"
)

// Kind is one of the eight kinds of namespace. The zero Kind is invalid.
type Kind uint8

// The kinds, with what each isolates; namespaces(7) is the overview.
const (
	_      Kind = iota
	Mount       // the mount tree: CLONE_NEWNS, mount_namespaces(7)
	PID         // process ids: CLONE_NEWPID, pid_namespaces(7); holds for children of the process only
	Net         // network devices, addresses, routes, ports, abstract sockets: CLONE_NEWNET, network_namespaces(7)
	IPC         // System V IPC and POSIX message queues: CLONE_NEWIPC, ipc_namespaces(7)
	UTS         // host and domain name: CLONE_NEWUTS, uts_namespaces(7)
	User        // user and group ids, capabilities: CLONE_NEWUSER, user_namespaces(7)
	Cgroup      // the root of the visible cgroup tree: CLONE_NEWCGROUP, cgroup_namespaces(7)
	Time        // offsets of the monotonic and boot-time clocks: CLONE_NEWTIME, time_namespaces(7); holds for children only
)

type kindFacts struct {
	word, proc, man, since string
	flag                   uintptr
}

// The CLONE_NEW flags are the same numbers on every architecture, so this table is portable.
var facts = [...]kindFacts{
	Mount:  {"mount", "mnt", "mount_namespaces(7)", "2.4.19", 0x00020000},
	PID:    {"pid", "pid", "pid_namespaces(7)", "2.6.24", 0x20000000},
	Net:    {"network", "net", "network_namespaces(7)", "2.6.29", 0x40000000},
	IPC:    {"ipc", "ipc", "ipc_namespaces(7)", "2.6.19", 0x08000000},
	UTS:    {"uts", "uts", "uts_namespaces(7)", "2.6.19", 0x04000000},
	User:   {"user", "user", "user_namespaces(7)", "3.8", 0x10000000},
	Cgroup: {"cgroup", "cgroup", "cgroup_namespaces(7)", "4.6", 0x02000000},
	Time:   {"time", "time", "time_namespaces(7)", "5.6", 0x00000080},
}

func (k Kind) facts() kindFacts {
	if !k.Valid() {
		return kindFacts{word: fmt.Sprintf("invalid namespace kind %d", uint8(k))}
	}
	return facts[k]
}

// All returns the eight kinds.
func All() []Kind { return []Kind{Mount, PID, Net, IPC, UTS, User, Cgroup, Time} }

// Valid reports whether k is one of the eight kinds.
func (k Kind) Valid() bool { return k >= Mount && k <= Time }

// String returns the kind as a word, as the OCI runtime specification spells it: "mount", "pid", "network",
// "ipc", "uts", "user", "cgroup" or "time".
func (k Kind) String() string { return k.facts().word }

// ProcName returns the name of the kind's file in /proc/PID/ns: "mnt", "net" and so on. It is empty for an
// invalid kind.
func (k Kind) ProcName() string { return k.facts().proc }

// ChildrenProcName returns the name of the file in /proc/PID/ns that stands for the namespace which children
// of the process will be in: "pid_for_children" and "time_for_children", and [Kind.ProcName] for other kinds.
func (k Kind) ChildrenProcName() string {
	if k == PID || k == Time {
		return k.ProcName() + "_for_children"
	}
	return k.ProcName()
}

// CloneFlag returns the CLONE_NEW flag of the kind, as clone(2), unshare(2) and setns(2) take it. It is zero
// for an invalid kind.
func (k Kind) CloneFlag() uintptr { return k.facts().flag }

// Since returns the first version of Linux that has the kind, such as "4.6".
func (k Kind) Since() string { return k.facts().since }

// ManPage returns the manual page of the kind, such as "mount_namespaces(7)".
func (k Kind) ManPage() string { return k.facts().man }

// MarshalText returns [Kind.String]; an invalid kind is an error.
func (k Kind) MarshalText() ([]byte, error) {
	if !k.Valid() {
		return nil, &Error{Op: "encode namespace kind", Object: k.String(), Err: ErrInvalid}
	}
	return []byte(k.String()), nil
}

// UnmarshalText is [ParseKind].
func (k *Kind) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKind(string(b))
	return err
}

// ParseKind reads a kind from its word ("network") or from the name of its /proc/PID/ns file ("net").
func ParseKind(s string) (Kind, error) {
	for _, k := range All() {
		if s == k.String() || s == k.ProcName() {
			return k, nil
		}
	}
	return 0, &Error{Op: "parse namespace kind", Object: fmt.Sprintf("%q", s), Err: ErrInvalid,
		Remedy: "use one of " + AllKinds.String()}
}

func kindOfFlag(flag uintptr) Kind {
	for _, k := range All() {
		if k.CloneFlag() == flag {
			return k
		}
	}
	return 0
}

// Kinds is a set of kinds. The zero value is the empty set.
type Kinds uint16

// AllKinds is the set of all eight kinds.
const AllKinds = Kinds(1<<Mount | 1<<PID | 1<<Net | 1<<IPC | 1<<UTS | 1<<User | 1<<Cgroup | 1<<Time)

// KindsOf returns the set of the given kinds. Invalid kinds are left out.
func KindsOf(kinds ...Kind) Kinds {
	var s Kinds
	for _, k := range kinds {
		s = s.With(k)
	}
	return s
}

// Has reports whether k is in the set.
func (s Kinds) Has(k Kind) bool { return k.Valid() && s&(1<<k) != 0 }

// With returns the set with k added.
func (s Kinds) With(k Kind) Kinds {
	if !k.Valid() {
		return s
	}
	return s | 1<<k
}

// Without returns the set with k removed.
func (s Kinds) Without(k Kind) Kinds { return s &^ (1 << k) }

// List returns the kinds in the set, in the order of [All].
func (s Kinds) List() []Kind {
	var l []Kind
	for _, k := range All() {
		if s.Has(k) {
			l = append(l, k)
		}
	}
	return l
}

// CloneFlags returns the CLONE_NEW flags of all kinds in the set.
func (s Kinds) CloneFlags() uintptr {
	var f uintptr
	for _, k := range s.List() {
		f |= k.CloneFlag()
	}
	return f
}

// String returns the words of the kinds, separated by commas.
func (s Kinds) String() string {
	var w []string
	for _, k := range s.List() {
		w = append(w, k.String())
	}
	return strings.Join(w, ",")
}
