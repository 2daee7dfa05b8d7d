// Package resctrl makes groups of the kernel's resctrl file system: classes of service, which share out cache and memory bandwidth
// (Intel RDT, AMD QoS, Arm MPAM), and monitoring groups (Documentation/filesystems/resctrl.rst; Linux 4.10).
//
//	/sys/fs/resctrl/                 the default class, in which all tasks are at first
//	/sys/fs/resctrl/CLASS/           schemata: what it may use; tasks: who is in it
//	/sys/fs/resctrl/CLASS/mon_groups/NAME/   tasks of the class that are counted apart
package resctrl

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caisson-go/caisson/internal/linux"
)

// Wish is what a container asks for. The parts are those of linux.intelRdt in the runtime specification.
type Wish struct {
	Class   string   `json:"class,omitempty"` // "": one of its own, by its id; "/": the default class
	L3      string   `json:"l3,omitempty"`
	MB      string   `json:"mb,omitempty"`
	Lines   []string `json:"lines,omitempty"`
	Monitor bool     `json:"monitor,omitempty"`
}

// Errors that are matched.
var (
	// ErrMissing: no resctrl file system is mounted, or the kernel has none.
	ErrMissing = errors.New("no resctrl file system")
	// ErrClass: the class of service is not there, is another than the wish describes, or is in use by others though it has the container's id.
	ErrClass = errors.New("class of service")
	// ErrIncapable: the file system is there, and the processor or the kernel has not what is asked for.
	ErrIncapable = errors.New("this machine's resctrl does not have")
)

// Bounds on what a configuration can have the kernel parse.
const (
	maxSchema = 4096 // bytes that the kernel takes at once: a page
	maxLines  = 256
)

// Names that are the file system's own.
var reserved = []string{"info", "mon_data", "mon_groups"}

// CheckName refuses what cannot be the name of a class or of a monitoring group.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\n\x00") || slices.Contains(reserved, name) {
		return fmt.Errorf("%.300q cannot be the name of a resctrl group", name)
	}
	return nil
}

// CheckL3 refuses what is no schema of a cache. It may have several lines, as with code and data apart.
func CheckL3(schema string) error { return checkLines(schema, "L3") }

// CheckMB refuses what is no line for memory bandwidth.
func CheckMB(line string) error {
	if strings.Contains(line, "\n") || !strings.HasPrefix(line, "MB:") {
		return fmt.Errorf("%.100q is not one line that begins with \"MB:\"", line)
	}
	return checkLines(line, "MB")
}

// CheckLines refuses what are no lines of the file schemata, with the index of the first.
func CheckLines(lines []string) (int, error) {
	if len(lines) > maxLines {
		return maxLines, fmt.Errorf("%d lines are more than %d", len(lines), maxLines)
	}
	for i, l := range lines {
		if strings.Contains(l, "\n") {
			return i, fmt.Errorf("%.100q is more than one line", l)
		}
		if err := checkLines(l, ""); err != nil {
			return i, err
		}
	}
	return 0, nil
}

func checkLines(text, resource string) error {
	if len(text) > maxSchema-1 {
		return fmt.Errorf("%d bytes are more than %d", len(text), maxSchema-1)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if s, ok := parse(line); !ok || !strings.HasPrefix(s.resource, resource) {
			return fmt.Errorf("%.100q is no line of resctrl's schemata, as %s is", line, example(resource))
		}
	}
	return nil
}

func example(resource string) string {
	if resource == "MB" {
		return `"MB:0=20;1=70"`
	}
	return `"L3:0=7f0;1=1f"`
}

// schema is a line of the file schemata: what each domain of a resource may use.
//
//	L3:0=fffff;1=fffff
type schema struct {
	resource string
	domains  map[string]string
}

func parse(line string) (schema, bool) {
	resource, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
	if !ok || resource == "" || strings.ContainsAny(line, "\x00") {
		return schema{}, false
	}
	s := schema{resource, map[string]string{}}
	for d := range strings.SplitSeq(rest, ";") {
		id, value, ok := strings.Cut(d, "=")
		id, value = strings.TrimSpace(id), strings.TrimSpace(value)
		if _, err := strconv.ParseUint(id, 10, 32); !ok || err != nil || value == "" {
			return s, false
		}
		s.domains[id] = value
	}
	return s, true
}

// maxBandwidth is what the kernel parses, 32 bits.
const maxBandwidth = 1<<32 - 1

// same compares a wanted value with one that the kernel shows: masks are hexadecimal, with or without 0x and leading zeros, bandwidths decimal and
// rounded up to a multiple of step.
func same(resource, a, b string, step func(resource string) uint64) bool {
	base := 16
	if strings.HasPrefix(resource, "MB") || strings.HasPrefix(resource, "SMBA") {
		base = 10
	}
	number := func(s string) (uint64, error) {
		if base == 16 {
			s = strings.TrimPrefix(strings.ToLower(s), "0x")
		}
		return strconv.ParseUint(s, base, 64)
	}
	x, xerr := number(a)
	y, yerr := number(b)
	if a == b || xerr != nil || yerr != nil {
		return a == b
	}
	if base == 10 && x != y && x <= maxBandwidth {
		n := step(resource)
		x = (x + n - 1) / n * n
	}
	return x == y
}

// differs names the first line of wanted that does not hold according to what the file schemata says; "" if all do. step tells how the bandwidths of a
// resource are rounded.
func differs(wanted, file string, step func(resource string) uint64) string {
	have := map[string]schema{}
	for line := range strings.Lines(file) {
		if s, ok := parse(line); ok {
			have[s.resource] = s
		}
	}
	for line := range strings.Lines(wanted) {
		w, _ := parse(line)
		for id, value := range w.domains {
			if is, ok := have[w.resource].domains[id]; !ok || !same(w.resource, value, is, step) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// compared is what an existing class must have; written is what is written, in this order, each in one go and without the last line break.
func (w *Wish) compared() string { return strings.Join(fields(w.l3(), w.MB), "\n") }

func (w *Wish) written() []string { return append(fields(w.l3(), w.MB), pages(w.Lines)...) }

func (w *Wish) l3() string { return strings.TrimSuffix(w.L3, "\n") }

// pages joins lines to texts that the kernel takes at once, each with a line break.
func pages(lines []string) (texts []string) {
	for _, l := range lines {
		if i := len(texts) - 1; i >= 0 && len(texts[i])+len(l)+2 <= maxSchema {
			texts[i] += "\n" + l
		} else {
			texts = append(texts, l)
		}
	}
	return texts
}

// fields are those that are not empty.
func fields(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// mount is a mounted file system.
type mount struct {
	dir  string
	mbps bool // mounted with mba_MBps
}

// mountedAt finds the file system in a table of mounts; the zero mount if it is not there.
//
//	36 35 0:31 / /sys/fs/resctrl rw,relatime shared:1 - resctrl resctrl rw,mba_MBps
func mountedAt(table string) mount {
	for line := range strings.Lines(table) {
		before, after, ok := strings.Cut(line, " - ")
		f, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || f[3] != "/" || len(super) == 0 || super[0] != "resctrl" {
			continue
		}
		return mount{linux.Unescape(f[4]), slices.Contains(strings.Split(super[len(super)-1], ","), "mba_MBps")}
	}
	return mount{}
}
