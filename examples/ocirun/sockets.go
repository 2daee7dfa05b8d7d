package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

// isInherited reports whether the caller handed over a descriptor.
func isInherited(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// notifySocket shows the socket of sd_notify(3) to the container, if the caller has one.
func notifySocket() caisson.Option {
	socket := os.Getenv("NOTIFY_SOCKET")
	if !filepath.IsAbs(socket) {
		return nil
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Type() != os.ModeSocket {
		return nil
	}
	const inside = "/run/notify/notify.sock"
	return caisson.Options(caisson.WithMount(rootfs.BindMount(socket, inside)), caisson.WithEnv("NOTIFY_SOCKET="+inside))
}
