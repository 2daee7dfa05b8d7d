package caisson

import "syscall"

// SignalAll sends a signal to every process of the container, those of Exec among them, and to none twice that is there all
// the time. Of a container without a pid namespace of its own it needs the cgroup. A process that is made meanwhile may be missed, except by
// SIGKILL, which reaches all. It is not an error if there is none.
func (c *Container) SignalAll(sig syscall.Signal) error {
	if sig <= 0 || sig > 64 {
		return c.fail("signal", invalid("SignalAll", "%d is no signal", int(sig)))
	}
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	return c.fail("signal", r.signalAll(sig))
}
