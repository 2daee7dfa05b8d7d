package rootfs

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	vol := func(d string) string { return filepath.Join(d, "vol") }
	badProc := func(change func(DirSource) DirSource) scenario {
		return scenario{source: func(d string) Source { return change(Dir(filepath.Join(d, "badroot"))) }, wants: unix.EINVAL}
	}
	// A root whose /proc is a symbolic link to /etc must not get procfs on /etc.
	scenarios["trap-proc-link"] = badProc(func(d DirSource) DirSource { return d })
	scenarios["trap-proc-link-readonly"] = badProc(DirSource.ReadOnly)
	for name, target := range map[string]string{"magic": "/magic", "magic-below": "/magic/x", "escape": "/escape/x"} {
		scenarios["trap-"+name] = scenario{
			source: func(d string) Source { return rootDir(d) },
			change: func(d string, l *Layout) { l.Mounts = append(l.Mounts, BindMount(vol(d), target)) },
			wants:  unix.ELOOP,
			skip:   onlyOpenat2,
		}
	}
	scenarios["trap-links-old-calls"] = scenario{
		source: func(d string) Source { return rootDir(d) },
		change: func(d string, l *Layout) { l.Mounts = append(l.Mounts, BindMount(vol(d), "/magic/x")) },
		wants:  unix.ENOTDIR,
		skip: func(m mode) string {
			if m.features.Openat2 {
				return "for kernels without openat2"
			}
			return ""
		},
	}
	scenarios["links-inside"] = scenario{
		source: func(d string) Source { return rootDir(d) },
		skip:   onlyOpenat2,
		change: func(d string, l *Layout) {
			l.Mounts = append(l.Mounts, BindMount(vol(d), "/abs/one"), BindMount(vol(d), "/up/two/deep"))
			l.MaskedPaths = append(l.MaskedPaths, "/abs/lower", "/up/passwd", "/data", "/nothing", "/file/x")
			l.ReadOnlyPaths = append(l.ReadOnlyPaths, "/abs/one", "/nothing")
		},
		check: func(c *checker) {
			common(c)
			c.content("/etc/one/hello", "volume")
			c.content("/etc/two/deep/hello", "volume")
			c.content("/etc/lower", "")
			c.content("/etc/passwd", "")
			c.refuses("/etc/one/new", unix.EROFS)
			c.refuses("/data/x", unix.EROFS)
		},
	}
	scenarios["mounts"] = scenario{
		source: func(d string) Source { return rootDir(d) },
		change: func(d string, l *Layout) {
			l.Mounts = append(l.Mounts,
				BindMount(vol(d), "/new/dir"), ReadOnlyBindMount(vol(d), "/data"), ReadOnlyBindMount(filepath.Join(d, "volfile"), "/file"),
				BindMount(filepath.Join(d, "volfile"), "/new/file"),
				Mount{Type: TypeTmpfs, Target: "/tmp", Size: 1 << 20, Mode: fs.ModeSticky | 0o777, Set: NoSuid | NoDev | NoExec},
				BindMount(vol(d), "/dev/vol"),
				OverlayMount("/ov", "", "", vol(d), filepath.Join(d, "outside")))
			l.ReadOnlyPaths = append(l.ReadOnlyPaths, "/new/dir/sub")
			l.MaskedPaths = append(l.MaskedPaths, "/etc/lower", "/missing/x")
			l.Files = []File{
				{Path: "/etc/passwd", Data: []byte("mine"), Mode: 0o600},
				{Path: "/in/put/large", Data: []byte(strings.Repeat("x", 10000)), Mode: 0o755},
				{Path: "/in/link", Link: "put/large"}, {Path: "/in/empty", Dir: true, Mode: 0o700},
				{Path: "/tmp/file", Data: []byte("in memory"), Mode: 0o644},
			}
		},
		check: func(c *checker) {
			common(c)
			c.content("/new/dir/hello", "volume")
			c.hasOptions("/new/dir", "nosuid", "nodev", "rw")
			c.hasOptions("/data", "nosuid", "nodev", "ro")
			c.refuses("/data/x", unix.EROFS)
			c.content("/file", "file of the host")
			c.refuses("/file", unix.EROFS)
			c.content("/new/file", "file of the host")
			c.hasOptions("/tmp", "nosuid", "nodev", "noexec")
			if fi, err := os.Stat("/tmp"); err != nil || fi.Mode().Perm() != 0o777 || fi.Mode()&fs.ModeSticky == 0 {
				c.bad("/tmp: %v %v", fi.Mode(), err)
			}
			c.content("/dev/vol/hello", "volume")
			c.content("/ov/hello", "volume")
			c.content("/ov/secret", "untouched")
			c.refuses("/ov/x", unix.EROFS)
			c.refuses("/new/dir/sub/x", unix.EROFS)
			c.content("/etc/lower", "")
			c.content("/etc/passwd", "mine")
			c.content("/in/link", strings.Repeat("x", 10000))
			c.content("/tmp/file", "in memory")
			if fi, err := os.Stat("/in/empty"); err != nil || fi.Mode().Perm() != 0o700 {
				c.bad("/in/empty: %v %v", fi, err)
			}
		},
	}
}

func onlyOpenat2(m mode) string {
	if !m.features.Openat2 {
		return "links in targets are refused without openat2"
	}
	return ""
}
