package rootfs

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Bounds of one line, and of the groups of one process (NGROUPS_MAX).
const (
	maxUserLine = 1 << 20
	maxGroups   = 65536
)

// passwdEntry is a line of passwd(5):
//
//	name:password:uid:gid:comment:home:shell
type passwdEntry struct {
	name        string
	uid, gid    uint32
	home, shell string
}

// groupEntry is a line of group(5):
//
//	name:password:gid:member,member
type groupEntry struct {
	name    string
	gid     uint32
	members string
}

func parsePasswdLine(line string) (e passwdEntry, ok bool) {
	f := strings.Split(line, ":")
	if len(f) < 4 || len(f) > 7 || !validName(f[0]) {
		return e, false
	}
	f = append(f, "", "", "")
	e = passwdEntry{name: f[0], home: f[5], shell: f[6]}
	var uidOK, gidOK bool
	e.uid, _, uidOK = parseID(f[2])
	e.gid, _, gidOK = parseID(f[3])
	return e, uidOK && gidOK
}

func parseGroupLine(line string) (e groupEntry, ok bool) {
	f := strings.Split(line, ":")
	if len(f) < 3 || len(f) > 4 || !validName(f[0]) {
		return e, false
	}
	f = append(f, "")
	e = groupEntry{name: f[0], members: f[3]}
	e.gid, _, ok = parseID(f[2])
	return e, ok
}

// findUser returns the first entry with the name, or with the number.
func findUser(r io.Reader, want ident) (found passwdEntry, ok bool, err error) {
	err = eachLine(r, func(line string) bool {
		e, valid := parsePasswdLine(line)
		if valid && (want.name == "" && e.uid == want.num || want.name != "" && e.name == want.name) {
			found, ok = e, true
		}
		return !ok
	})
	return found, ok, err
}

// findGroup returns the number of a group; a number need not be listed.
func findGroup(r io.Reader, want ident) (gid uint32, err error) {
	if want.name == "" {
		return want.num, nil
	}
	found := false
	err = eachLine(r, func(line string) bool {
		e, valid := parseGroupLine(line)
		if valid && e.name == want.name {
			gid, found = e.gid, true
		}
		return !found
	})
	if err == nil && !found {
		err = ErrUnknownGroup
	}
	return gid, err
}

// memberships returns the groups that list u, and its primary group.
func memberships(r io.Reader, u User) ([]uint32, error) {
	groups := []uint32{u.GID}
	if u.Name == "" {
		return groups, nil
	}
	err := eachGroup(r, func(g groupEntry) {
		if hasMember(g.members, u.Name) {
			groups = append(groups, g.gid)
		}
	})
	if err != nil {
		return nil, err
	}
	groups = tidyGroups(groups)
	if len(groups) > maxGroups {
		return nil, fmt.Errorf("groups of one user: %w of %d", ErrTooLarge, maxGroups)
	}
	return groups, nil
}

func hasMember(members, name string) bool {
	for m := range strings.SplitSeq(members, ",") {
		if strings.TrimSpace(m) == name {
			return true
		}
	}
	return false
}

func eachGroup(r io.Reader, fn func(groupEntry)) error {
	return eachLine(r, func(line string) bool {
		if e, ok := parseGroupLine(line); ok {
			fn(e)
		}
		return true
	})
}

// eachLine hands out lines without their end until fn returns false. More bytes than maxUserDB, or a line
// longer than maxUserLine, is [ErrTooLarge]: a long line that were dropped could be the one that matters.
func eachLine(r io.Reader, fn func(line string) bool) error {
	limited := &io.LimitedReader{R: r, N: maxUserDB + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, maxUserLine)
	for s.Scan() {
		if limited.N == 0 || !fn(s.Text()) {
			break
		}
	}
	switch {
	case limited.N == 0:
		return fmt.Errorf("%w of %d bytes", ErrTooLarge, maxUserDB)
	case s.Err() == bufio.ErrTooLong:
		return fmt.Errorf("line %w of %d bytes", ErrTooLarge, maxUserLine)
	}
	return s.Err()
}
