//go:build linux

package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The keeper has room for the directories of one group.
const (
	keptDirs = 12
	keptDir  = 256 // bytes of a path, with its end
)

// errNoKeeper says that there is no keeper that could be told.
var errNoKeeper = errors.New("there is no keeper")

// KeepGroup has the keeper remove a group's directories when the host has ended, in whatever way, if they are empty then. It replaces what
// was given before. Without a keeper, which the first [Keep] starts, it fails.
func KeepGroup(dirs []string) error {
	if len(dirs) > keptDirs {
		return fmt.Errorf("a group of %d directories is too large for the keeper", len(dirs))
	}
	msg := make([]byte, 16+len(dirs)*keptDir)
	for i, dir := range dirs {
		if len(dir) >= keptDir {
			return &os.PathError{Op: "have the keeper note", Path: dir, Err: unix.ENAMETOOLONG}
		}
		copy(msg[16+i*keptDir:], dir)
	}
	k := &theKeeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sock < 0 {
		return errNoKeeper
	}
	k.group = msg
	return k.sendGroup()
}

// sendGroup tells the keeper of the group, with a message that carries no descriptor.
func (k *keeper) sendGroup() error {
	binary.NativeEndian.PutUint64(k.group[8:], uint64(firstSlot+len(k.slots)))
	for {
		err := unix.Sendmsg(k.sock, k.group, nil, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}
