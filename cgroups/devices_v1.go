package cgroups

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// A v1 device group has one of two policies, and exceptions to it. Under "denied" a request is allowed if one single
// exception names all that it asks for; under "allowed" it is denied if any exception names any of it. Exceptions do
// not add up and have no order, which a list of rules does. So the list is worked out first, for each pattern of
// numbers that it distinguishes.

// A devicePolicy is what a v1 group is told.
type devicePolicy struct {
	allow      bool         // the policy for what no exception matches
	exceptions []DeviceRule // with Allow as the opposite of allow
}

var errV1Rules = errors.New("these rules both allow and deny exceptions within wider rules, which a v1 device group cannot hold")

// policyOf translates rules.
func policyOf(rules []DeviceRule) (devicePolicy, error) {
	var cells [2][]cell
	types := [2]DeviceType{CharDevice, BlockDevice}
	for i, t := range types {
		cells[i] = cellsOf(rules, t)
	}
	open := cells[0][0].access&cells[1][0].access == DeviceAny // what no rule names is allowed
	for _, allow := range []bool{open, !open} {
		p := devicePolicy{allow: allow}
		fits := true
		for i, t := range types {
			fits = fits && p.add(t, cells[i])
		}
		if fits {
			return p, nil
		}
	}
	return devicePolicy{}, errV1Rules
}

// A cell is a set of devices that no rule tells apart: those of a number that a rule names, or of all others.
type cell struct {
	major, minor int64
	access       DeviceAccess
}

// covers says whether the pattern that c would be as an exception matches d too.
func (c cell) covers(d cell) bool {
	return (c.major == AnyNumber || c.major == d.major) && (c.minor == AnyNumber || c.minor == d.minor)
}

// noNumber is a number that no device has, for "all others".
const noNumber = -2

// cellsOf lists the patterns of the rules, that for all devices, and where two of them cross: wider ones first.
func cellsOf(rules []DeviceRule, t DeviceType) []cell {
	list := []cell{{major: AnyNumber, minor: AnyNumber}}
	for _, r := range rules {
		if r.Type == t {
			list = append(list, cell{major: r.Major, minor: r.Minor})
		}
	}
	for _, c := range list {
		for _, d := range list {
			if c.minor == AnyNumber && d.major == AnyNumber {
				list = append(list, cell{major: c.major, minor: d.minor})
			}
		}
	}
	slices.SortFunc(list, func(c, d cell) int { return cmp.Or(cmp.Compare(c.major, d.major), cmp.Compare(c.minor, d.minor)) })
	list = slices.Compact(list)
	for i := range list {
		c := &list[i]
		c.access = allows(rules, t, member(c.major), member(c.minor))
	}
	return list
}

// member is a number of a device that a pattern is about.
func member(n int64) int64 {
	if n == AnyNumber {
		return noNumber
	}
	return n
}

// add puts the exceptions for one type into the policy; false when it cannot express them.
func (p *devicePolicy) add(t DeviceType, cells []cell) bool {
	for i, c := range cells { // wider ones come first
		if p.allow {
			c.access ^= DeviceAny
		}
		var wider DeviceAccess
		for j, d := range cells {
			if p.allow {
				d.access ^= DeviceAny
			}
			switch {
			case i == j:
			case c.covers(d) && c.access&^d.access != 0:
				return false // the exception for c would say too much about d
			case d.covers(c) && (p.allow || d.access == c.access):
				wider |= d.access // said by d
			}
		}
		if c.access&^wider != 0 {
			p.exceptions = append(p.exceptions, DeviceRule{!p.allow, t, c.major, c.minor, c.access})
		}
	}
	return true
}

func unsupportedV1Rules(mode Mode) error {
	return &UnsupportedError{Controller: Devices, Knob: "devices.allow", Mode: mode, Err: errV1Rules,
		Reason: "they cannot be translated", Remedy: "write them as exceptions to one policy, or use cgroup v2"}
}

// settings writes the policy into a group from scratch.
func (p *devicePolicy) settings() []Setting {
	list := []Setting{{Controller: Devices, File: policyFile(p.allow), Value: "a"}}
	for _, e := range p.exceptions {
		list = append(list, e.settingV1())
	}
	return list
}

func policyFile(allow bool) string {
	if allow {
		return "devices.allow"
	}
	return "devices.deny"
}

func (r DeviceRule) settingV1() Setting {
	return Setting{Controller: Devices, File: policyFile(r.Allow), Value: r.pattern() + " " + r.Access.String()}
}

// changeFrom writes the policy into a group whose devices.list reads so. From one list of allowed devices to another
// only the differences are written, what is new first: a process inside never loses what it had and keeps.
func (p *devicePolicy) changeFrom(list string) []Setting {
	have, ok := parseDeviceList(list)
	if !ok || p.allow {
		return p.settings()
	}
	var plan []Setting
	for _, want := range p.exceptions {
		if missing := want.Access &^ accessOf(have, want); missing != 0 {
			want.Access = missing
			plan = append(plan, want.settingV1())
		}
	}
	for _, old := range have {
		if extra := old.Access &^ accessOf(p.exceptions, old); extra != 0 {
			old.Allow, old.Access = false, extra
			plan = append(plan, old.settingV1())
		}
	}
	return plan
}

// accessOf finds the access that a list has for exactly the devices of r.
func accessOf(list []DeviceRule, r DeviceRule) (a DeviceAccess) {
	for _, e := range list {
		if e.Type == r.Type && e.Major == r.Major && e.Minor == r.Minor {
			a |= e.Access
		}
	}
	return a
}

// parseDeviceList reads devices.list of a group that denies what it does not list:
//
//	c 1:3 rwm
//	b *:* m
//
// A group that allows has one line, "a *:* rwm", and does not tell its exceptions: then ok is false.
func parseDeviceList(text string) (list []DeviceRule, ok bool) {
	for line := range strings.Lines(text) {
		r, err := ParseDeviceRule(line)
		if err != nil || r.Type == AllDevices || !strings.HasPrefix(line, r.Type.String()) {
			return nil, false
		}
		list = append(list, r)
	}
	return list, true
}
