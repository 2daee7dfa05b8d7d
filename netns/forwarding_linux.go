package netns

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Whether the host forwards is one setting for each family, a switch. Whoever turns it has the kernel turn others with it, whatever they were
// (inet_forward_change in net/ipv4/devinet.c, addrconf_fixup_forwarding in net/ipv6/addrconf.c):
//
//	                                 on   off
//	ipv4/conf/all/accept_redirects   0    1
//	conf/default/forwarding          1    0    of the family
//	conf/DEVICE/forwarding           1    0    of the family, each device
//
// So those that the kernel would not set back are noted with the switch, and set back after it.
const (
	switch4 = "/proc/sys/net/ipv4/ip_forward"
	conf4   = "/proc/sys/net/ipv4/conf/"
	switch6 = "/proc/sys/net/ipv6/conf/all/forwarding"
	conf6   = "/proc/sys/net/ipv6/conf/"
)

// readSetting reads a setting; ok is false if there is none.
func readSetting(path string) (value string, ok bool, err error) {
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return strings.TrimSpace(string(b)), err == nil, err
}

// forwarding returns the settings that let the host forward packets of a network, with the values that they have to get, each switch before
// what goes with it.
func forwarding(n *netState) (out []sysctlState, err error) {
	var faults []error
	for _, s := range n.Subnets {
		path := switch6
		if s.Addr().Is4() {
			path = switch4
		}
		value, ok, err := readSetting(path)
		if !ok || value != "0" { // it is on
			faults = append(faults, err)
			continue
		}
		with, err := turnedWith(path)
		faults = append(faults, err)
		out = append(append(out, sysctlState{Path: path, Before: value, Now: "1"}), with...)
	}
	return out, errors.Join(faults...)
}

// turnedWith returns what goes with a switch that is off. IPv6's makes a host a router, which takes no router advertisements; where a device
// does, accept_ra 2 lets it go on.
func turnedWith(path string) (out []sysctlState, err error) {
	var faults []error
	note := func(s sysctlState, noted func(before string) bool) {
		before, ok, err := readSetting(s.Path)
		faults = append(faults, err)
		if ok && noted(before) {
			s.Before, s.Switch = before, path
			out = append(out, s)
		}
	}
	conf := conf6
	if path == switch4 {
		conf = conf4
		note(sysctlState{Path: conf + "all/accept_redirects", Now: "0", Off: "1"}, func(string) bool { return true })
	}
	devices, err := os.ReadDir(conf)
	faults = append(faults, err)
	for _, entry := range devices {
		d := entry.Name()
		if d == "all" {
			continue
		}
		if conf == conf6 {
			note(sysctlState{Path: conf + d + "/accept_ra", Now: "2"}, func(before string) bool { return before == "1" })
		}
		note(sysctlState{Path: conf + d + "/forwarding", Now: "1", Off: "0"}, func(before string) bool { return before != "0" })
	}
	return out, errors.Join(faults...)
}

// ensureForwarding switches forwarding on where it is not, and notes before what the values were, and who relied on it all the same. A value that was noted
// before, and changed back by someone else, is written again.
func ensureForwarding(s *store, n *netState, k ownedKey) error {
	if n.Internal {
		return nil
	}
	todo, err := forwarding(n)
	if err != nil || len(todo) == 0 {
		return err
	}
	noted, err := s.sysctls()
	if err != nil {
		return err
	}
	others, err := relying(k)
	if err != nil {
		return err
	}
	for _, t := range todo {
		if t.Switch == "" {
			t.Others = others
		}
		if !slices.ContainsFunc(noted, func(k sysctlState) bool { return k.Path == t.Path }) {
			noted = append(noted, t)
		}
	}
	if err := s.saveSysctls(noted); err != nil {
		return err
	}
	for _, t := range slices.Backward(todo) { // the switches after what has to be as it is before
		if t.Off != "" { // the kernel's affair
			continue
		}
		if err := setSysctl(t.Path, t.Now); err != nil {
			return err
		}
	}
	return nil
}

// restoreSysctls gives settings the values that they had, unless someone else has changed them since. A switch on which others have come to rely, who found it
// on and did not have to turn it, stays, with all that goes with it. A program that is killed meanwhile has
// turned the switch, or not: what goes with it is then what the kernel has made of it, and gets its value the next time.
func restoreSysctls(s *store, k ownedKey) error {
	l, err := s.sysctls()
	if err != nil || len(l) == 0 {
		return err
	}
	others, err := relying(k)
	if err != nil {
		return err
	}
	stays := map[string]bool{}
	for _, st := range l {
		stays[st.Path] = st.Switch == "" && reliedOn(st.Path, st.Others, others)
	}
	var turn, after []sysctlState
	for _, st := range slices.Backward(l) {
		if stays[st.Path] || stays[st.Switch] {
			continue
		}
		value, ok, err := readSetting(st.Path)
		if err != nil {
			return err
		}
		switch {
		case !ok: // the device is gone
		case st.Switch == "":
			if value == st.Now {
				turn = append(turn, st)
			}
		default:
			// Of another value than is expected somebody has decided meanwhile, and it stays, through the turn of the switch too.
			expected := st.Now
			if on, _, err := readSetting(st.Switch); err != nil {
				return err
			} else if on == "0" {
				expected = cmp.Or(st.Off, st.Now)
			}
			if value != expected {
				st.Before = value
			}
			after = append(after, st)
		}
	}
	var faults []error
	for _, st := range append(turn, after...) {
		if err := setSysctl(st.Path, st.Before); !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
