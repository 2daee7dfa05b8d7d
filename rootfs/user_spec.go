package rootfs

import (
	"io"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxID is the greatest user or group id; 4294967295 means "no change" to the kernel.
const maxID = 1<<32 - 2

// maxName bounds a user or group name; useradd allows 32, directories somewhat more.
const maxName = 256

// ident is one half of a specification: a number, or a name if that is not empty.
type ident struct {
	num  uint32
	name string
}

// userSpec is a parsed specification.
type userSpec struct {
	user     ident
	group    ident
	hasGroup bool
}

// CheckUser judges what [LookupUser] takes without a root to look in. A malformed specification is a [*UserError] with [ErrBadUser].
func CheckUser(spec string) error {
	if _, err := parseUserSpec(spec); err != nil {
		return &UserError{spec, err}
	}
	return nil
}

func parseUserSpec(spec string) (want userSpec, err error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	want.hasGroup = hasGroup
	if want.user, err = parseIdent(user); err != nil {
		return userSpec{}, err
	}
	if hasGroup {
		if want.group, err = parseIdent(group); err != nil {
			return userSpec{}, err
		}
	}
	return want, nil
}

// parseIdent decides once and for all whether s is a number or a name.
func parseIdent(s string) (ident, error) {
	if n, digits, ok := parseID(s); digits {
		if !ok {
			return ident{}, ErrBadUser
		}
		return ident{num: n}, nil
	}
	if !validName(s) {
		return ident{}, ErrBadUser
	}
	return ident{name: s}, nil
}

// parseID reads a decimal id. digits says that s consists of digits and so is a number, fit or not.
func parseID(s string) (id uint32, digits, ok bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, false
	}
	return uint32(n), true, true
}

// validName refuses what looks like a signed number or an option, and what cannot stand in passwd.
func validName(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '-' || s[0] == '+' || !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return r == ':' || r == ',' || r == '/' || !unicode.IsGraphic(r) || unicode.IsSpace(r)
	}) < 0
}

// resolve looks the specification up. It reads passwd to the first match and group to its end.
func (want userSpec) resolve(passwd, group io.Reader) (User, error) {
	u := User{UID: want.user.num, Home: "/"}
	entry, found, err := findUser(passwd, want.user)
	switch {
	case err != nil:
		return User{}, err
	case found:
		u = User{Name: entry.name, UID: entry.uid, GID: entry.gid, Home: cleanHome(entry.home), Shell: cleanShell(entry.shell)}
	case want.user.name != "":
		return User{}, ErrUnknownUser
	}
	if want.hasGroup {
		if u.GID, err = findGroup(group, want.group); err != nil {
			return User{}, err
		}
		u.Groups = []uint32{u.GID}
		return u, nil
	}
	u.Groups, err = memberships(group, u)
	return u, err
}

// cleanHome lets nothing into $HOME that could pass for something else where it is written or printed.
func cleanHome(home string) string {
	if !printablePath(home) {
		return "/"
	}
	return path.Clean(home)
}

func cleanShell(shell string) string {
	if !printablePath(shell) {
		return ""
	}
	return shell
}

func printablePath(p string) bool {
	return len(p) > 0 && len(p) <= 4095 && p[0] == '/' && utf8.ValidString(p) &&
		strings.IndexFunc(p, func(r rune) bool { return r == ':' || !unicode.IsPrint(r) }) < 0
}

// clipText bounds text of unknown length in a message.
func clipText(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
