package caps

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnknown is what errors.Is finds when a capability's name is not known.
var ErrUnknown = errors.New("unknown capability")

// ParseCap returns the capability called name, with or without the CAP_
// prefix, in any case: "CAP_NET_ADMIN", "net_admin". The form CAP_n with a
// decimal number up to 63 names one newer than this package. A name that is
// not known is an error that Is [ErrUnknown].
func ParseCap(name string) (Cap, error) {
	bare := strings.ToUpper(name)
	bare = strings.TrimPrefix(bare, "CAP_")
	for i, n := range names {
		if n == bare {
			return Cap(i), nil
		}
	}
	if n, ok := number(bare); ok && len(bare) != len(name) {
		return n, nil
	}
	return 0, fmt.Errorf("capability %q: %w", name, ErrUnknown)
}

// number reads a capability number as String writes it: no sign, no leading
// zero, none that has a name.
func number(s string) (Cap, bool) {
	if len(s) != 2 || s[0] < '1' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, false
	}
	n := Cap(s[0]-'0')*10 + Cap(s[1]-'0')
	return n, n > LastKnown && n <= maxCap
}

// ParseNames returns the set that holds every named capability. The name ALL
// (any case) stands for all: what that is the caller says, usually
// UpTo(Last()) or the bounding set. Every unknown name is reported, in one
// joined error, and the set is then empty.
func ParseNames(names []string, all Set) (Set, error) {
	var set Set
	var faults []error
	for _, name := range names {
		if strings.EqualFold(name, "all") {
			set |= all
			continue
		}
		c, err := ParseCap(name)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		set = set.Add(c)
	}
	if err := errors.Join(faults...); err != nil {
		return 0, err
	}
	return set, nil
}

// Parse reads a set written as names between commas or white space, as
// [Set.String] writes it; "none" and "" are the empty set. See [ParseNames].
func Parse(text string, all Set) (Set, error) {
	fields := strings.FieldsFunc(text, func(r rune) bool {
		return r == ',' || r == ' ' || r == '\t' || r == '\n'
	})
	if len(fields) == 1 && strings.EqualFold(fields[0], "none") {
		return 0, nil
	}
	return ParseNames(fields, all)
}
