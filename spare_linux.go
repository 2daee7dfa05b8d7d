package caisson

import (
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
)

// inputNetwork is the program's input for a network namespace that the host program has made.
const inputNetwork = "network namespace"

// mayTakeNetwork reports whether the container's new network namespace can be one that was made before its start: it belongs to the host
// program's user namespace, and the process that enters it does all the rest in it too.
func (r *running) mayTakeNetwork(priv bool) bool {
	return priv && r.m.newNS&unix.CLONE_NEWNET != 0 && r.m.userns == usernsNone && !r.m.outside() && !r.spec.detach.on && r.spec.restore == nil
}

// takeNetwork takes it. What this program may not do is left to the stage, whose error says what is missing.
func (r *running) takeNetwork() {
	if !r.m.ownNet || r.takeRecycled() {
		return
	}
	fd, err := stage.TakeNetwork()
	if err != nil {
		r.m.ownNet = false
		return
	}
	r.fds[inputNetwork], r.netFD = fd, fd
}

// leaveNetwork closes it here, when the stage has it or will not be.
func (r *running) leaveNetwork() {
	if r.netFD != 0 {
		unix.Close(r.netFD)
		r.netFD = 0
	}
}
