package namespaces

import (
	"errors"
	"os"
)

// Joined is an open namespace that a process is going to enter.
type Joined struct {
	Kind Kind
	File *os.File
	own  bool // opened by OpenJoined
}

// Close closes the file if [Set.OpenJoined] opened it; files given to [JoinFile] stay open.
func (j Joined) Close() {
	if j.own {
		j.File.Close()
	}
}

// OpenJoined opens the namespaces that the set joins, verifies their kinds, and returns them in the order in which a
// process has to enter them: first those that the joined user namespace does not own, which need the privileges that
// the process has before; then the user namespace; then those that it owns, or whose owner cannot be seen, which need
// the privileges gained. A mount namespace comes last of its group. Namespaces that the calling program is in already are
// left out: entering them again changes nothing, needs privileges all the same, and is refused for the user kind.
//
// On an error nothing stays open. Otherwise the caller closes each with [Joined.Close].
func (s *Set) OpenJoined() ([]Joined, error) {
	var l []Joined
	var faults []error
	for _, k := range s.Joined().List() {
		j, err := s.Get(k).open(k)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if j.isCurrent() {
			j.Close()
			continue
		}
		l = append(l, j)
	}
	if err := errors.Join(faults...); err != nil {
		closeJoined(l)
		return nil, err
	}
	return joinOrder(l), nil
}

func closeJoined(l []Joined) {
	for _, j := range l {
		j.Close()
	}
}

// open opens what n joins.
func (n Namespace) open(k Kind) (Joined, error) {
	if err := n.validate(k); err != nil {
		return Joined{}, err
	}
	switch n.how {
	case howPath:
		f, err := Open(k, n.path)
		return Joined{k, f, true}, err
	case howPID:
		f, err := Of(k, n.pid)
		return Joined{k, f, true}, err
	}
	if err := checkKind(k, n.file); err != nil {
		return Joined{}, &Error{Op: "join " + k.String() + " namespace", Object: n.file.Name(), Err: err}
	}
	return Joined{k, n.file, false}, nil
}

// isCurrent reports whether the program is in j already. What counts is its main thread, for the calling one may be in
// another namespace for a while, and what the children of the program are born in.
func (j Joined) isCurrent() bool {
	f, err := openProcNS(j.Kind, "self", true)
	if err != nil {
		return false
	}
	defer f.Close()
	same, err := Same(f, j.File)
	return err == nil && same
}

func joinOrder(l []Joined) []Joined {
	var user, mount *Joined
	var before, after []Joined
	for i := range l {
		if l[i].Kind == User {
			user = &l[i]
		}
	}
	place := func(j Joined) {
		if user == nil || !ownedBy(j.File, user.File) {
			before = append(before, j)
		} else {
			after = append(after, j)
		}
	}
	for i := range l {
		switch l[i].Kind {
		case User:
		case Mount:
			mount = &l[i]
		default:
			place(l[i])
		}
	}
	if mount != nil {
		place(*mount)
	}
	if user != nil {
		before = append(before, *user)
	}
	return append(before, after...)
}

// ownedBy reports whether user namespace u, or one that cannot be seen from here, owns f.
func ownedBy(f, u *os.File) bool {
	owner, err := OwningUser(f)
	if err != nil {
		return true
	}
	defer func() { owner.Close() }() // the last one
	// Descendants of u count as u's: capabilities in u hold in them.
	for {
		if same, err := Same(owner, u); err != nil || same {
			return true
		}
		parent, err := Parent(owner)
		if err != nil {
			return false
		}
		owner.Close()
		owner = parent
	}
}
