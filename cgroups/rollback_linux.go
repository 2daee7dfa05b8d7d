package cgroups

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A formerly is what a file of a group held before an update.
type formerly struct {
	n     *node
	file  string
	value string
}

// formerly reads what plan is about to change, in its order. A file that is not there, or cannot be read, is left out:
// the write will tell.
func (n *node) formerly(plan []Setting) (list []formerly) {
	for _, s := range plan {
		file := s.File
		text, err := readText(n.fd, file)
		if errors.Is(err, unix.ENOENT) && s.alt != "" {
			file = s.alt
			text, err = readText(n.fd, file)
		}
		if err == nil {
			list = append(list, formerly{n, file, formerValue(file, s.Value, text)})
		}
	}
	return list
}

// formerValue finds in the text of a file what has to be written to it so that the wish is undone. Most files hold one
// value. Some hold a line for each device or resource, and the wish is about one of them:
//
//	io.max             8:0 rbps=1048576 wbps=max riops=max wiops=max
//	io.weight          default 100
//	blkio.throttle.…   8:0 1048576
//	misc.max           sev_es 10
func formerValue(file, wish, text string) string {
	none, keyed := lineFiles[file]
	if !keyed && strings.HasPrefix(file, "blkio.throttle.") {
		none, keyed = "0", true
	}
	if !keyed {
		if v := strings.TrimSpace(text); v != "" {
			return v
		}
		return "\n" // an empty cpuset
	}
	key, _, _ := strings.Cut(wish, " ")
	for line := range strings.Lines(text) {
		if k, _, _ := strings.Cut(line, " "); k == key {
			return strings.TrimSpace(line)
		}
	}
	return key + " " + none
}

// lineFiles are files with a line for each device or resource, and what stands for a line that is missing.
var lineFiles = map[string]string{
	"io.max":                  "rbps=max wbps=max riops=max wiops=max",
	"io.weight":               "default",
	"io.bfq.weight":           "default",
	"blkio.bfq.weight_device": "default",
	"misc.max":                "max",
}

// restore writes back what was read, the last first. What is refused as invalid, since it depends on others, is tried
// once more after them.
func restore(list []formerly) error {
	var again []formerly
	var faults []error
	for _, f := range slices.Backward(list) {
		if err := f.n.write(f.file, f.value); errors.Is(err, unix.EINVAL) {
			again = append(again, f)
		} else if err != nil {
			faults = append(faults, err)
		}
	}
	for _, f := range again {
		faults = append(faults, f.n.write(f.file, f.value))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("and the former limits could not be restored: %w", err)
	}
	return nil
}
