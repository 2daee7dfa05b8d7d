package namespaces

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

// SubIDRange is a range of ids that a user may map in user namespaces: one line of /etc/subuid or /etc/subgid.
type SubIDRange struct {
	Start, Count uint32
}

// SubIDs are the ranges of one user.
type SubIDs struct {
	UID, GID []SubIDRange
}

// The files of subuid(5), subgid(5) and passwd(5). A larger file than maxIDFile is refused; no real one is.
const (
	subuidFile = "/etc/subuid"
	subgidFile = "/etc/subgid"
	passwdFile = "/etc/passwd"
	maxIDFile  = 16 << 20
)

// SubordinateIDs returns the ranges that /etc/subuid and /etc/subgid give to the user with this id, under its name or
// its number. Files that do not exist count as empty. When either file has no range, the error matches
// [ErrNoSubordinateIDs] and names the command that adds one.
//
// The name comes from /etc/passwd; for users that are known elsewhere (LDAP and the like) list the number.
func SubordinateIDs(uid uint32) (SubIDs, error) {
	name, err := userName(uid)
	if err != nil {
		return SubIDs{}, err
	}
	return subordinateIDs(subuidFile, subgidFile, ownerNames(name, uid)...)
}

// ownerNames are the spellings under which a file may list a user.
func ownerNames(name string, uid uint32) []string {
	n := strconv.FormatUint(uint64(uid), 10)
	if name == "" {
		return []string{n}
	}
	return []string{name, n}
}

func subordinateIDs(uidFile, gidFile string, owners ...string) (ids SubIDs, err error) {
	if ids.UID, err = readSubIDs(uidFile, owners); err != nil {
		return SubIDs{}, err
	}
	if ids.GID, err = readSubIDs(gidFile, owners); err != nil {
		return SubIDs{}, err
	}
	if len(ids.UID) == 0 || len(ids.GID) == 0 {
		file := uidFile
		if len(ids.UID) != 0 {
			file = gidFile
		}
		return ids, &Error{Op: "look up subordinate ids of", Object: owners[0] + " in " + file, Err: ErrNoSubordinateIDs,
			Remedy: subIDRemedy(uidFile, gidFile, owners[0])}
	}
	return ids, nil
}

// subIDRemedy proposes a range that nobody has in either file.
func subIDRemedy(uidFile, gidFile, owner string) string {
	const size = 65536
	first := uint64(100_000)
	for _, path := range []string{uidFile, gidFile} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) != 3 {
				continue
			}
			from, err1 := strconv.ParseUint(f[1], 10, 32)
			n, err2 := strconv.ParseUint(f[2], 10, 32)
			if end := from + n; err1 == nil && err2 == nil && end > first && end+size < 1<<31 {
				first = end
			}
		}
	}
	return fmt.Sprintf("add a range that nobody else has: usermod --add-subuids %d-%d --add-subgids %[1]d-%[2]d %[3]s", first, first+size-1, owner)
}

func readSubIDs(path string, owners []string) ([]SubIDRange, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Op: "read subordinate ids", Err: err}
	}
	defer f.Close()
	l, err := parseSubIDs(f, owners)
	if err != nil {
		return nil, &Error{Op: "read subordinate ids", Object: path, Err: err}
	}
	return l, nil
}

// parseSubIDs reads the ranges of the owners. Lines that are malformed or belong to others are passed over, as
// newuidmap passes over them. The text has lines of this form, owner being a name or a number:
//
//	owner:start:count
func parseSubIDs(r io.Reader, owners []string) ([]SubIDRange, error) {
	var l []SubIDRange
	err := eachLine(r, func(line string) {
		f := strings.Split(line, ":")
		if len(f) != 3 || f[0] == "" || !contains(owners, f[0]) {
			return
		}
		start, err1 := parseID(f[1])
		count, err2 := parseID(f[2])
		if err1 != nil || err2 != nil || count == 0 || start > math.MaxUint32-count || len(l) == MaxIDMaps {
			return
		}
		l = append(l, SubIDRange{start, count})
	})
	return l, err
}

func contains(l []string, s string) bool {
	for _, x := range l {
		if x == s {
			return true
		}
	}
	return false
}

// userName returns the name of a user from /etc/passwd, or "" if the file does not list the number. Not os/user:
// with cgo that links the C library into the embedder.
func userName(uid uint32) (string, error) {
	f, err := os.Open(passwdFile)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", &Error{Op: "look up user", Object: strconv.FormatUint(uint64(uid), 10), Err: err}
	}
	defer f.Close()
	return parsePasswdName(f, uid)
}

// parsePasswdName finds the first line with the number: name:password:UID:GID:...
func parsePasswdName(r io.Reader, uid uint32) (name string, err error) {
	err = eachLine(r, func(line string) {
		f := strings.SplitN(line, ":", 4)
		if name != "" || len(f) != 4 || f[0] == "" {
			return
		}
		if n, err := parseID(f[2]); err == nil && n == uid {
			name = f[0]
		}
	})
	return name, err
}

// eachLine calls f for every line of at most 64 KiB; it refuses longer lines and files longer than maxIDFile.
func eachLine(r io.Reader, f func(string)) error {
	limited := &io.LimitedReader{R: r, N: maxIDFile + 1}
	s := bufio.NewScanner(limited)
	for s.Scan() {
		f(s.Text())
	}
	if s.Err() == nil && limited.N == 0 {
		return fmt.Errorf("%w: larger than %d bytes", ErrInvalid, maxIDFile)
	}
	return s.Err()
}
