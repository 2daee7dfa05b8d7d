package namespaces

import (
	"os"

	"golang.org/x/sys/unix"
)

// AutoIDMaps chooses the maps of a new user namespace for the calling process.
//
// An unprivileged caller gets the style asked for, out of its ranges in /etc/subuid and /etc/subgid; if it has none or
// newuidmap(1) and newgidmap(1) are not installed, it gets [SingleID], and [AutoMaps.Shortfall] says why.
//
// A caller that may write any map (root with CAP_SETUID and CAP_SETGID) gets ids from 0 inside mapped to a range that
// nobody has, whichever of the two styles was asked for, so that root inside is never root outside. The range is that
// of "root", else that of "caisson" in the two files, else [DefaultRangeSize] ids from [DefaultRangeStart].
//
// The error is for faults of the call and for files that cannot be read, not for what the machine lacks.
func AutoIDMaps(style MapStyle) (AutoMaps, error) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	own, err := ownIDMaps()
	if err != nil {
		return AutoMaps{}, err
	}
	setuid, setgid := haveCap(unix.CAP_SETUID), haveCap(unix.CAP_SETGID)
	return chooseMaps(style, caller{
		uid: uid, gid: gid, own: own, privileged: setuid && setgid,
		newIDMap: func() error { _, _, err := findNewIDMap(); return err },
		subIDs: func(name string) (SubIDs, error) {
			if name == "" {
				return SubordinateIDs(uid)
			}
			return subordinateIDs(subuidFile, subgidFile, name)
		},
	})
}

// SingleIDMaps returns the maps that any process may write for its own child: id 0 inside is the caller's effective
// user and group id, nothing else is mapped.
func SingleIDMaps() IDMaps { return singleMaps(uint32(os.Geteuid()), uint32(os.Getegid())) }

// IDMapsOf returns the maps of the user namespace that process pid is in. The ids outside are as the caller's own
// user namespace sees them, or as the parent's when it is the same one (user_namespaces(7)).
func IDMapsOf(pid int) (IDMaps, error) {
	dir, err := openProc(pid)
	if err != nil {
		return IDMaps{}, err
	}
	defer dir.Close()
	return readIDMaps(dir)
}

func ownIDMaps() (IDMaps, error) {
	dir, err := openProcSelf()
	if err != nil {
		return IDMaps{}, err
	}
	defer dir.Close()
	return readIDMaps(dir)
}

func readIDMaps(dir *os.File) (m IDMaps, err error) {
	for _, f := range []struct {
		name string
		to   *[]IDMap
	}{{"uid_map", &m.UID}, {"gid_map", &m.GID}} {
		text, err := readAt(dir, f.name, 64<<10)
		if err != nil {
			return IDMaps{}, err
		}
		if *f.to, err = ParseIDMaps(text); err != nil {
			return IDMaps{}, err
		}
	}
	return m, nil
}

// haveCap reports whether the calling thread has capability c in effect. All threads of a Go program have the same.
func haveCap(c int) bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if unix.Capget(&h, &d[0]) != nil {
		return false
	}
	return d[c/32].Effective&(1<<(c%32)) != 0
}
