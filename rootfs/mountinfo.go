package rootfs

import (
	"bufio"
	"io"
	"strings"
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
		e := mountEntry{point: unescape(f[4]), fstype: g[0], source: unescape(g[1])}
		if len(g) > 2 {
			e.options = unescape(g[2])
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

// unescape undoes the kernel's escapes: space, tab, newline and backslash appear as three octal digits.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
