package cgroups

import (
	"errors"
	"slices"
	"strings"
)

// joinFaults joins errors, those about several controllers that say the same as one.
func joinFaults(faults []error) error {
	var out []error
	for _, err := range faults {
		if err != nil && !absorb(out, err) {
			out = append(out, err)
		}
	}
	if len(out) == 1 {
		return out[0]
	}
	return errors.Join(out...)
}

// absorb adds the controllers of err to an error that says the same; the very same error need not be said twice.
func absorb(list []error, err error) bool {
	if slices.ContainsFunc(list, func(other error) bool { return other.Error() == err.Error() }) {
		return true
	}
	u, ok := err.(*UnsupportedError)
	if !ok || u.Knob != "" || u.Controller == 0 {
		return false
	}
	for i, other := range list {
		o, ok := other.(*UnsupportedError)
		if !ok || o.Knob != "" || o.Controller == 0 || o.Remedy != u.Remedy || o.Err != u.Err {
			continue
		}
		both := *o
		both.Controller |= u.Controller
		if dir, in := strings.CutPrefix(u.Reason, noGroupIn); in && strings.HasPrefix(o.Reason, noGroupIn) {
			if !strings.HasSuffix(o.Reason, " in "+dir) {
				both.Reason += " nor in " + dir
			}
		} else if o.Reason != u.Reason {
			continue
		}
		list[i] = &both
		return true
	}
	return false
}

// noGroupIn begins the reason for which a directory cannot be used.
const noGroupIn = "no group can be made in "
