package rootfs

import (
	"bufio"
	"io"
	"strings"

	"github.com/caisson-go/caisson/internal/linux"
)

// mountEntry is a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), as far as it is of use here:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	      root ─┘     └─ point              fstype ┘    └─ source   └─ options
type mountEntry struct {
	point, fstype, source, options string
}

// parseMountinfo reads mountinfo; lines it cannot read are skipped. Of mounts on the same point only the last
// one is visible and returned.
func parseMountinfo(r io.Reader) ([]mountEntry, error) {
	var out []mountEntry
	at := map[string]int{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		e := mountEntry{point: linux.Unescape(f[4]), fstype: g[0], source: linux.Unescape(g[1])}
		if len(g) > 2 {
			e.options = linux.Unescape(g[2])
		}
		if i, dup := at[e.point]; dup {
			out[i] = e
			continue
		}
		at[e.point] = len(out)
		out = append(out, e)
	}
	return out, s.Err()
}
