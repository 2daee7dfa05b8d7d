package rootfs

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// pathKind is what stands at a path of the kernel's filesystems.
type pathKind int

const (
	kindUnknown pathKind = iota
	kindMissing
	kindFile
	kindDir
)

var kinds sync.Map // path -> pathKind, of /proc and /sys, which are the same in every container

// lookHere tells the kind of a path in /proc or /sys from the caller's own. Where the caller does not see all
// of them it answers kindUnknown.
func lookHere(path string) pathKind {
	if k, ok := kinds.Load(path); ok {
		return k.(pathKind)
	}
	k := lookKernel(path)
	kinds.Store(path, k)
	return k
}

func lookKernel(path string) pathKind {
	witness := "/proc/sys"
	if strings.HasPrefix(path, "/sys") {
		witness = "/sys/kernel"
	}
	var st unix.Stat_t
	if unix.Stat(witness, &st) != nil {
		return kindUnknown
	}
	switch err := unix.Lstat(path, &st); {
	case err == unix.ENOENT:
		return kindMissing
	case err != nil:
		return kindUnknown
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return kindDir
	}
	return kindFile
}

// sourceFlags returns the MS_ flags of the mount at path.
func sourceFlags(path string) uintptr {
	var sf unix.Statfs_t
	if unix.Statfs(path, &sf) != nil {
		return 0
	}
	return statfsFlags(int64(sf.Flags))
}

// layerPath is a path of the layer; for looking at it, not for opening.
func layerPath(l Layer) string {
	if l.File == nil {
		return l.Path
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(l.File.Fd())))
	if err != nil {
		return "/"
	}
	return path
}

// hasMountsBelow says whether something is mounted below path. When that cannot be read it says yes.
func hasMountsBelow(path string) bool {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return true
	}
	defer f.Close()
	prefix := strings.TrimSuffix(path, "/") + "/"
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) > 4 && f[4] != "/" && strings.HasPrefix(linux.Unescape(f[4]), prefix) {
			return true
		}
	}
	return s.Err() != nil
}

// spareDir is a directory right below "/" that a start has no use for.
var spareDir = sync.OnceValue(func() string {
	for _, dir := range []string{"/mnt", "/srv", "/media", "/opt", "/home", "/usr"} {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return dir
		}
	}
	return "/"
})
