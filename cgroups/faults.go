package cgroups

import "errors"

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

// absorb adds the controllers of err to an error that says the same.
func absorb(list []error, err error) bool {
	u, ok := err.(*UnsupportedError)
	if !ok || u.Knob != "" || u.Controller == 0 {
		return false
	}
	for i, other := range list {
		o, ok := other.(*UnsupportedError)
		if ok && o.Knob == "" && o.Controller != 0 && o.Reason == u.Reason && o.Remedy == u.Remedy && o.Err == u.Err {
			both := *o
			both.Controller |= u.Controller
			list[i] = &both
			return true
		}
	}
	return false
}
