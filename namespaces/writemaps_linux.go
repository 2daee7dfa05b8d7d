package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// WriteMaps sets the maps of the user namespace that process pid has just made, a child of the calling process that
// waits for them. A map can be set once only. pidfd, if not nil, is a pidfd of the process: with it the call fails
// rather than touch another process that was given the same number.
//
// A map is written directly where the kernel allows it: any map when the caller has CAP_SETUID (for gids CAP_SETGID)
// in its own user namespace, and a single id that is the caller's own; for the single gid setgroups(2) is denied in the
// namespace first, as user_namespaces(7) demands. Any other map is set by newuidmap(1) or newgidmap(1), which check it
// against /etc/subuid and /etc/subgid. They run with an empty environment and end when ctx does.
//
// Errors match [ErrInvalid], [ErrNoNewIDMap], [ErrProcessGone] or the errno of the write.
func WriteMaps(ctx context.Context, pid int, pidfd *os.File, maps IDMaps) error {
	if err := maps.Validate(); err != nil {
		return err
	}
	dir, err := openProc(pid)
	if err != nil {
		return err
	}
	defer dir.Close()
	// After dir was opened: from here on dir is that process, or refuses.
	if pidfd != nil {
		if err := sameProcess(pid, pidfd); err != nil {
			return err
		}
	}
	w := mapWriter{ctx: ctx, pid: pid, dir: dir, pidfd: pidfd}
	if err := w.writeUID(maps.UID); err != nil {
		return w.explain("uid", err)
	}
	return w.explain("gid", w.writeGID(maps.GID))
}

type mapWriter struct {
	ctx   context.Context
	pid   int
	dir   *os.File
	pidfd *os.File
}

func (w mapWriter) writeUID(l []IDMap) error {
	if haveCap(unix.CAP_SETUID) || isOwn(l, os.Geteuid()) {
		return writeAt(w.dir, "uid_map", FormatIDMaps(l))
	}
	return w.run("newuidmap", "uid_map", l)
}

func (w mapWriter) writeGID(l []IDMap) error {
	if haveCap(unix.CAP_SETGID) {
		return writeAt(w.dir, "gid_map", FormatIDMaps(l))
	}
	if !isOwn(l, os.Getegid()) {
		return w.run("newgidmap", "gid_map", l)
	}
	// Without this a process could drop a group that denies it a file.
	if err := writeAt(w.dir, "setgroups", "deny"); err != nil {
		return err
	}
	return writeAt(w.dir, "gid_map", FormatIDMaps(l))
}

func isOwn(l []IDMap, id int) bool {
	return len(l) == 1 && l[0].Size == 1 && l[0].HostID == uint32(id)
}

func (w mapWriter) run(program, file string, l []IDMap) error {
	uidmap, gidmap, err := findNewIDMap()
	if err != nil {
		return err
	}
	path := uidmap
	if program == "newgidmap" {
		path = gidmap
	}
	if w.pidfd != nil {
		// The program takes a number, so the process must not have been reaped before and after it ran.
		if err := sameProcess(w.pid, w.pidfd); err != nil {
			return err
		}
	}
	err = runNewIDMap(w.ctx, path, w.pid, l)
	if errors.Is(err, ErrStatusLost) {
		err = w.check(file, l, err)
	}
	if err == nil && w.pidfd != nil {
		return sameProcess(w.pid, w.pidfd)
	}
	return err
}

// check reads back what newuidmap wrote, where its exit status was taken by someone else.
func (w mapWriter) check(file string, l []IDMap, cause error) error {
	text, err := readAt(w.dir, file, 64<<10)
	if err != nil {
		return err
	}
	got, err := ParseIDMaps(text)
	if err != nil {
		return err
	}
	if FormatIDMaps(got) != FormatIDMaps(l) {
		return cause
	}
	return nil
}

func (w mapWriter) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: "set " + what + " map of", Object: fmt.Sprintf("process %d", w.pid), Err: err}
	if errors.Is(err, unix.EPERM) {
		e.Remedy = "the map must not have been set before; other ids than the caller's own need CAP_SETUID and CAP_SETGID, or a range in " +
			subuidFile + " and " + subgidFile
	}
	return e
}
