package cgroups

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A DeviceType tells which nodes a [DeviceRule] is about. The zero value is invalid.
type DeviceType uint8

const (
	CharDevice  DeviceType = iota + 1 // character devices
	BlockDevice                       // block devices
	AllDevices                        // both; only with AnyNumber as Major and Minor
)

// String returns "c", "b" or "a", as the kernel writes them.
func (t DeviceType) String() string {
	switch t {
	case CharDevice:
		return "c"
	case BlockDevice:
		return "b"
	case AllDevices:
		return "a"
	}
	return fmt.Sprintf("DeviceType(%d)", uint8(t))
}

// DeviceAccess is a set of what can be done with a device. The empty set is invalid in a rule.
type DeviceAccess uint8

const (
	DeviceMknod DeviceAccess = 1 << iota // make a node for it: mknod(2)
	DeviceRead                           // open it for reading
	DeviceWrite                          // open it for writing

	// DeviceAny is all of these.
	DeviceAny = DeviceMknod | DeviceRead | DeviceWrite
)

// String returns the letters of the set, of "rwm".
func (a DeviceAccess) String() string {
	var b []byte
	for i, bit := range [...]DeviceAccess{DeviceRead, DeviceWrite, DeviceMknod} {
		if a&bit != 0 {
			b = append(b, "rwm"[i])
		}
	}
	return string(b)
}

// AnyNumber as Major or Minor of a [DeviceRule] stands for all numbers.
const AnyNumber = -1

const (
	maxMajor = 1<<12 - 1 // the kernel has 12 bits for the one
	maxMinor = 1<<20 - 1 // and 20 for the other
	maxRules = 256
)

// A DeviceRule allows or denies access to device nodes. See [Resources].Devices for what a list of them means.
type DeviceRule struct {
	Allow        bool // false denies
	Type         DeviceType
	Major, Minor int64 // 0 to 4095 and 0 to 1048575, or AnyNumber
	Access       DeviceAccess
}

// String writes the rule as "allow c 1:3 rwm".
func (r DeviceRule) String() string {
	if r.Allow {
		return "allow " + r.pattern() + " " + r.Access.String()
	}
	return "deny " + r.pattern() + " " + r.Access.String()
}

// pattern writes what the rule is about as v1 does: "c 1:*".
func (r DeviceRule) pattern() string {
	return r.Type.String() + " " + deviceNumber(r.Major) + ":" + deviceNumber(r.Minor)
}

func deviceNumber(n int64) string {
	if n == AnyNumber {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// ParseDeviceRule reads "allow c 1:3 rwm", "deny b *:* w" or, as an allowing rule, "c 10:200 rwm"; a rule about
// everything may be written "deny a". Faults are a [*ResourceError].
func ParseDeviceRule(s string) (DeviceRule, error) {
	r := DeviceRule{Allow: true, Major: AnyNumber, Minor: AnyNumber, Access: DeviceAny}
	fail := func(why string) (DeviceRule, error) {
		return DeviceRule{}, &ResourceError{Field: "Devices", Value: s, Reason: why}
	}
	f := strings.Fields(s)
	if len(f) > 0 && (f[0] == "allow" || f[0] == "deny") {
		r.Allow = f[0] == "allow"
		f = f[1:]
	}
	if len(f) == 1 && f[0] == "a" {
		r.Type = AllDevices
		return r, nil
	}
	if len(f) != 3 {
		return fail(`is not of the form "allow c 1:3 rwm"`)
	}
	i := strings.Index("cba", f[0])
	if len(f[0]) != 1 || i < 0 {
		return fail("has a type other than a, b and c")
	}
	r.Type = DeviceType(i + 1)
	major, minor, ok := strings.Cut(f[1], ":")
	var err1, err2 error
	r.Major, err1 = parseDeviceNumber(major)
	r.Minor, err2 = parseDeviceNumber(minor)
	if !ok || err1 != nil || err2 != nil {
		return fail(`has no numbers such as "1:3" or "1:*"`)
	}
	r.Access = 0
	for _, c := range f[2] {
		bit := DeviceAccess(0)
		switch c {
		case 'r':
			bit = DeviceRead
		case 'w':
			bit = DeviceWrite
		case 'm':
			bit = DeviceMknod
		}
		if bit == 0 || r.Access&bit != 0 {
			return fail(`has an access that is not some of "rwm"`)
		}
		r.Access |= bit
	}
	if why := r.fault(); why != "" {
		return fail(why)
	}
	return r, nil
}

func parseDeviceNumber(s string) (int64, error) {
	if s == "*" {
		return AnyNumber, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int64(n), err
}

// fault says what is wrong with the rule; "" when nothing is.
func (r DeviceRule) fault() string {
	switch {
	case r.Type < CharDevice || r.Type > AllDevices:
		return "has no device type"
	case r.Access == 0 || r.Access&^DeviceAny != 0:
		return "has no access, or one that is not known"
	case r.Major < AnyNumber || r.Major > maxMajor:
		return "has a major number that is not within 0 to 4095"
	case r.Minor < AnyNumber || r.Minor > maxMinor:
		return "has a minor number that is not within 0 to 1048575"
	case r.Type == AllDevices && (r.Major != AnyNumber || r.Minor != AnyNumber):
		return "is about all types and names a number; the kernel would ignore it"
	}
	return ""
}

// CheckDeviceRules reports every fault of a list of rules, joined; each is a [*ResourceError].
func CheckDeviceRules(rules []DeviceRule) error {
	var f faults
	f.devices(rules)
	return errors.Join(f...)
}

func (f *faults) devices(rules []DeviceRule) {
	if len(rules) > maxRules {
		f.add("Devices", len(rules), "are more than 256 rules")
	}
	for i, r := range rules {
		if why := r.fault(); why != "" {
			f.add("Devices["+strconv.Itoa(i)+"]", r, why)
		}
	}
}

// DefaultDeviceRules are the rules of the OCI runtime specification's default devices, as runc and crun apply them:
// nodes may be made for every device, but only null, zero, full, random, urandom, tty, ptmx and pseudo-terminals may
// be opened. The slice is the caller's own.
func DefaultDeviceRules() []DeviceRule {
	rules := []DeviceRule{
		{Allow: true, Type: CharDevice, Major: AnyNumber, Minor: AnyNumber, Access: DeviceMknod},
		{Allow: true, Type: BlockDevice, Major: AnyNumber, Minor: AnyNumber, Access: DeviceMknod},
	}
	for _, n := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, AnyNumber}} {
		rules = append(rules, DeviceRule{Allow: true, Type: CharDevice, Major: n[0], Minor: n[1], Access: DeviceAny})
	}
	return rules
}

// allows is what a list of rules means: each kind of access is decided by the last rule that matches the device and
// names it, and is denied where there is none; a request is allowed if all that it asks for is.
func allows(rules []DeviceRule, t DeviceType, major, minor int64) (a DeviceAccess) {
	for _, r := range rules {
		switch {
		case !r.matches(t, major, minor):
		case r.Allow:
			a |= r.Access
		default:
			a &^= r.Access
		}
	}
	return a
}

func (r DeviceRule) matches(t DeviceType, major, minor int64) bool {
	return (r.Type == t || r.Type == AllDevices) && (r.Major == AnyNumber || r.Major == major) &&
		(r.Minor == AnyNumber || r.Minor == minor)
}
