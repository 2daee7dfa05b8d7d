package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount below /usr/lib, as of kernel modules, or as WSL makes: a user's view is composed of what lies beside it.
func init() {
	const mounted = "/usr/lib/tmpfiles.d"
	scenarios["host-beside"] = scenario{
		source: func(string) Source {
			if err := unix.Mount("tmpfs", mounted, "tmpfs", 0, "size=64k"); err != nil {
				fmt.Println("mount:", err)
			} else if err := os.WriteFile(mounted+"/x", []byte("below"), 0o644); err != nil {
				fmt.Println(err)
			}
			return Host()
		},
		skip: func(m mode) string {
			if !m.userns {
				return "Host needs a user namespace"
			}
			return ""
		},
		ranges: true,
		check: func(c *checker) {
			hostOnly(c)
			c.content(mounted+"/x", "below")
			c.writes(mounted+"/new", "new")
			if !strings.Contains(strings.Join(c.desc.Notes, "\n"), "/usr/lib/os-release is read-only: other mounts lie beside it") {
				c.bad("notes are %q", c.desc.Notes)
			}
			if _, err := os.ReadFile("/usr/lib/os-release"); err != nil {
				c.bad("%v", err)
			}
			if err := os.WriteFile("/usr/lib/os-release", nil, 0o644); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
				c.bad("a file of the host was opened for writing: %v", err)
			}
			c.writes("/usr/lib/new", "new")
			c.writes("/usr/lib/udev/new", "new")
		},
	}
}
