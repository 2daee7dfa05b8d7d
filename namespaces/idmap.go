package namespaces

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// IDMap maps a range of user or group ids of a user namespace to ids of its parent: one line of /proc/PID/uid_map,
// see user_namespaces(7).
type IDMap struct {
	ContainerID uint32 // first id inside
	HostID      uint32 // first id outside, as the parent user namespace sees it
	Size        uint32 // how many ids; at least 1
}

// MaxIDMaps is the largest number of ranges that the kernel takes (Linux 4.15).
const MaxIDMaps = 340

// maxIDMapText is what the kernel takes in the one write(2) that sets a map: less than a page, which is 4 KiB
// on most machines. Ranges with large numbers reach it before [MaxIDMaps].
const maxIDMapText = 4095

// String returns the range as the kernel writes it: "0 100000 65536".
func (m IDMap) String() string {
	return fmt.Sprintf("%d %d %d", m.ContainerID, m.HostID, m.Size)
}

// IDMaps are the maps of a user namespace. The zero value maps nothing: all ids inside are the overflow id
// (65534).
type IDMaps struct {
	UID, GID []IDMap
}

// IsZero reports whether nothing is mapped.
func (m IDMaps) IsZero() bool { return len(m.UID) == 0 && len(m.GID) == 0 }

// Equal reports whether both map the same ranges in the same order.
func (m IDMaps) Equal(o IDMaps) bool { return slices.Equal(m.UID, o.UID) && slices.Equal(m.GID, o.GID) }

// String returns the maps in one line: "uid 0 100000 65536, gid 0 100000 65536".
func (m IDMaps) String() string {
	var w []string
	for _, r := range m.UID {
		w = append(w, "uid "+r.String())
	}
	for _, r := range m.GID {
		w = append(w, "gid "+r.String())
	}
	return strings.Join(w, ", ")
}

// Validate refuses maps that the kernel would refuse, and returns all faults joined: no range, ranges of no ids
// or beyond the largest id, ranges that overlap inside or outside, and too many of them. Each matches [ErrInvalid].
func (m IDMaps) Validate() error {
	return errors.Join(validateIDMaps("uid map", m.UID), validateIDMaps("gid map", m.GID))
}

func validateIDMaps(field string, l []IDMap) error {
	var faults []error
	switch {
	case len(l) == 0:
		return invalid(field, "it has no range")
	case len(l) > MaxIDMaps:
		return invalid(field, "%d ranges are more than %d", len(l), MaxIDMaps)
	}
	for i, m := range l {
		switch {
		case m.Size == 0:
			faults = append(faults, invalid(field, "range %q has no ids", m))
		case m.ContainerID > math.MaxUint32-m.Size, m.HostID > math.MaxUint32-m.Size:
			// The last id, 4294967295, is (uid_t)-1, which means "no id".
			faults = append(faults, invalid(field, "range %q goes beyond id 4294967294", m))
		}
		for _, o := range l[:i] {
			if overlap(m.ContainerID, m.Size, o.ContainerID, o.Size) {
				faults = append(faults, invalid(field, "ranges %q and %q overlap inside", o, m))
			}
			if overlap(m.HostID, m.Size, o.HostID, o.Size) {
				faults = append(faults, invalid(field, "ranges %q and %q overlap outside", o, m))
			}
		}
	}
	if n := len(FormatIDMaps(l)); n > maxIDMapText {
		faults = append(faults, invalid(field, "its text of %d bytes is longer than %d", n, maxIDMapText))
	}
	return errors.Join(faults...)
}

func overlap(a, an, b, bn uint32) bool {
	return uint64(a) < uint64(b)+uint64(bn) && uint64(b) < uint64(a)+uint64(an)
}

// ToHost returns the id outside that stands for id inside, and whether it is mapped.
func ToHost(maps []IDMap, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// ToContainer returns the id inside that stands for id outside, and whether it is mapped.
func ToContainer(maps []IDMap, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.HostID && id-m.HostID < m.Size {
			return m.ContainerID + (id - m.HostID), true
		}
	}
	return 0, false
}

// FormatIDMaps returns the ranges as /proc/PID/uid_map takes them, a line each.
func FormatIDMaps(l []IDMap) string {
	var b strings.Builder
	for _, m := range l {
		b.WriteString(m.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// ParseIDMaps reads ranges as /proc/PID/uid_map shows them: three numbers a line, separated by blanks.
//
//	0     100000      65536
//
// It does not judge the ranges; [IDMaps.Validate] does.
func ParseIDMaps(text string) ([]IDMap, error) {
	var l []IDMap
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.TrimSpace(line) == "" {
			continue
		}
		if len(l) == MaxIDMaps {
			return nil, invalid("id map", "it has more than %d ranges", MaxIDMaps)
		}
		m, err := parseIDMap(strings.Fields(line))
		if err != nil {
			return nil, invalid("id map", "line %.80q is not three numbers", line)
		}
		l = append(l, m)
	}
	return l, nil
}

// ParseIDMap reads one range written with colons, "0:100000:65536": id inside, id outside, count.
func ParseIDMap(s string) (IDMap, error) {
	m, err := parseIDMap(strings.Split(s, ":"))
	if err != nil {
		return IDMap{}, invalid("id map", "%.80q is not of the form INSIDE:OUTSIDE:COUNT", s)
	}
	return m, nil
}

func parseIDMap(f []string) (m IDMap, err error) {
	if len(f) != 3 {
		return m, strconv.ErrSyntax
	}
	for i, to := range []*uint32{&m.ContainerID, &m.HostID, &m.Size} {
		n, err := parseID(f[i])
		if err != nil {
			return IDMap{}, err
		}
		*to = n
	}
	return m, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
