package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What iptables-legacy made stands in tables that nftables does not know. They are read as it does (linux/netfilter_ipv4/ip_tables.h, and
// ip6_tables.h): the kernel gives a table as one block of entries.

// legacyFamily is where things stand in an entry of a family.
type legacyFamily struct {
	name, proc, tool          string
	domain, level             int
	in, out, inMask, outMask  int // interfaces
	inverted, wanted, targets int // flags of what is inverted, the length of the conditions, and where the target's offset stands
	size                      int
}

var legacyFamilies = []legacyFamily{
	{"ip", "ip_tables_names", "iptables-legacy", unix.AF_INET, unix.SOL_IP, 16, 32, 48, 64, 83, 84, 88, 112},
	{"ip6", "ip6_tables_names", "ip6tables-legacy", unix.AF_INET6, unix.SOL_IPV6, 64, 80, 96, 112, 132, 136, 140, 168},
}

const (
	legacyInfo    = 64 // IPT_SO_GET_INFO
	legacyEntries = 65 // IPT_SO_GET_ENTRIES
	legacyForward = 2  // NF_INET_FORWARD
	legacyDrop    = -1 // the verdict: -NF_DROP - 1
	maxLegacy     = 16 << 20
)

// findLegacy finds the chain FORWARD of iptables-legacy, if it drops what the device forwards, and no rule of the table is about the device. Tables that nobody has used
// are not made by looking.
func findLegacy(device string, four, six bool) (out []Obstacle, err error) {
	if unsafe.Sizeof(uintptr(0)) != 8 { // entries are aligned otherwise
		return nil, nil
	}
	for i, f := range legacyFamilies {
		if i == 0 && !four || i == 1 && !six {
			continue
		}
		names, err := readFile("/proc/thread-self/net/" + f.proc)
		// In a namespace that was made together with its user namespace the file belongs to nobody in that: such a one is an ordinary user's own.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || err == nil && !slices.Contains(strings.Fields(string(names)), "filter") {
			continue
		}
		var t *legacyTable
		if err == nil {
			t, err = f.read("filter")
		}
		if err != nil {
			return nil, &Error{Op: "list rules of " + f.tool, Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "run as root")}
		}
		if !t.refuses() || t.names(device) {
			continue
		}
		o := Obstacle{Family: f.name, Table: "filter", Chain: "FORWARD", Legacy: true}
		o.Remedy = o.remedyIn(f.tool, t.has, device)
		out = append(out, o)
	}
	return out, nil
}

// legacyTable is a table as the kernel gives it.
type legacyTable struct {
	family      legacyFamily
	entries     []byte
	begin, last int // of the chain FORWARD: its first entry, and that of its policy
}

// read reads a table of the calling thread's namespace.
func (f legacyFamily) read(name string) (*legacyTable, error) {
	s, err := unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	const nameSize, head = 32, 40
	for range 10 {
		info := make([]byte, 84)
		copy(info, name)
		if err := getOption(s, f.level, legacyInfo, info); err != nil {
			return nil, err
		}
		word := func(i int) int { return int(binary.NativeEndian.Uint32(info[nameSize+4*i:])) }
		size := word(12)
		if size > maxLegacy {
			return nil, fmt.Errorf("%d bytes of rules: %w", size, unix.EFBIG)
		}
		b := make([]byte, head+size)
		copy(b, name)
		binary.NativeEndian.PutUint32(b[nameSize:], uint32(size))
		err := getOption(s, f.level, legacyEntries, b)
		if err == unix.EAGAIN { // it has changed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		return &legacyTable{f, b[head:], word(1 + legacyForward), word(6 + legacyForward)}, nil
	}
	return nil, unix.EAGAIN
}

// getOption is getsockopt(2) for a structure.
func getOption(s, level, name int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return errno
	}
	return nil
}

// legacyEntry is a rule.
type legacyEntry struct {
	at, targetAt int
	data         []byte
	target       []byte
}

// each calls f with every entry, until that says to stop. What does not fit ends it.
func (t *legacyTable) each(f func(legacyEntry) bool) {
	for at := 0; at+t.family.size <= len(t.entries); {
		b := t.entries[at:]
		target, next := int(binary.NativeEndian.Uint16(b[t.family.targets:])), int(binary.NativeEndian.Uint16(b[t.family.targets+2:]))
		if target < t.family.size || next < target+36 || next > len(b) {
			return
		}
		if !f(legacyEntry{at, target, b[:next], b[target:next]}) {
			return
		}
		at += next
	}
}

// kind is the name of the target; "" for a verdict.
func (e legacyEntry) kind() string {
	name, _, _ := bytes.Cut(e.target[2:31], []byte{0})
	return string(name)
}

// refuses says that the chain drops what none of its rules takes: by its policy, or by a rule without a condition.
func (t *legacyTable) refuses() (found bool) {
	t.each(func(e legacyEntry) bool {
		if e.at < t.begin || e.at > t.last {
			return e.at <= t.last
		}
		always := e.targetAt == t.family.size && !slices.ContainsFunc(e.data[:t.family.wanted], func(c byte) bool { return c != 0 })
		drops := e.kind() == "REJECT" || e.kind() == "" && int32(binary.NativeEndian.Uint32(e.target[32:])) == legacyDrop
		found = found || always && drops
		return true
	})
	return found
}

// names says that a rule is about the device.
func (t *legacyTable) names(device string) (found bool) {
	f := t.family
	t.each(func(e legacyEntry) bool {
		for i, at := range []int{f.in, f.out} {
			mask := e.data[[]int{f.inMask, f.outMask}[i]:][:16]
			n := 0
			for n < len(mask) && mask[n] != 0 {
				n++
			}
			found = found || n > 0 && e.data[f.inverted]&(1<<i) == 0 && namesDevice(e.data[at:at+n], device)
		}
		return !found
	})
	return found
}

// has says whether there is a chain of that name.
func (t *legacyTable) has(chain string) (found bool) {
	t.each(func(e legacyEntry) bool {
		if e.kind() == "ERROR" && len(e.target) >= 62 { // what a chain begins with
			name, _, _ := bytes.Cut(e.target[32:62], []byte{0})
			found = string(name) == chain
		}
		return !found
	})
	return found
}
