//go:build !linux

package caisson

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/rootfs"
)

// errOS is what everything answers that would need the Linux kernel.
var errOS = fmt.Errorf("%w: containers need Linux, this is %s", ErrUnsupported, runtime.GOOS)

type running struct{}

func (r *running) exec(context.Context, *spec) (*Process, error)     { return nil, errOS }
func (r *running) shutExec()                                         {}
func (r *running) close() error                                      { return nil }
func (r *running) rootView() (*rootfs.Root, error)                   { return nil, errOS }
func (r *running) view(context.Context, State) (*rootfs.View, error) { return nil, errOS }
func (r *running) memoryLimit() int64                                { return 0 }
func (r *running) watchable() bool                                   { return false }
func (r *running) watch(context.Context, []cgroups.PressureTrigger) iter.Seq2[cgroups.Event, error] {
	return func(func(cgroups.Event, error) bool) {}
}
func goneGroup(error) bool                            { return false }
func (r *running) isPaused() bool                     { return false }
func (r *running) freeze(context.Context, bool) error { return errOS }
func (r *running) update(context.Context, cgroups.Resources, cgroups.Resources) error {
	return errOS
}
func (r *running) stats(func(*cgroups.Group) (cgroups.Stats, error)) (*cgroups.Stats, error) {
	return nil, errOS
}
func (r *running) top(context.Context) ([]ProcessInfo, error) { return nil, errOS }
func (r *running) signalAll(syscall.Signal) error             { return errOS }
func (c *Container) check(context.Context) error              { return errOS }
func (c *Container) explain(context.Context, io.Writer) error { return errOS }
func (c *Container) release(*attempt) error                   { return errOS }
func (c *Container) create(*attempt, bool) error              { return errOS }

func (r *running) dial(context.Context, []sockAddress) (net.Conn, error)       { return nil, errOS }
func (r *running) listen(context.Context, []sockAddress) (net.Listener, error) { return nil, errOS }
func (r *running) listenPacket(context.Context, []sockAddress) (net.PacketConn, error) {
	return nil, errOS
}

func (c *Container) refollow()                                         {}
func (c *Container) waitFollowed(context.Context) (*Result, error)     { return nil, errOS }
func (c *Container) stopFollowed(context.Context, time.Duration) error { return errOS }
func (c *Container) signalFollowed(int) error                          { return errOS }
func (c *Container) healthFollowed() Health                            { return Health{} }
func (c *Container) restartsFollowed() int                             { return 0 }
func (d StateDir) info(context.Context, string) (*Info, error)         { return nil, errOS }
func (d StateDir) revive(context.Context) (int, error)                 { return 0, errOS }

// supervision is what a monitor has of its container.
type supervision struct{}

func (*supervision) began(*running) {}

func monitorMain([]Option) {
	fmt.Fprintln(os.Stderr, "caisson: a monitor of containers:", errOS)
	os.Exit(2)
}

func (r *running) attachTo(context.Context, AttachOptions) (*Attachment, error) { return nil, errOS }

func (r *running) mount(context.Context, []rootfs.Mount) error       { return errOS }
func (r *running) unmount(context.Context, string, bool, bool) error { return errOS }

func (r *running) actingIn(context.Context, *rootfs.Root, func(context.Context, *rootfs.Root) error) error {
	return errOS
}

func (r *running) checkpoint(context.Context, *Process, CheckpointConfig) error { return errOS }

func (r *running) recorded(*cgroups.Resources) error         { return errOS }
func (r *running) record(cgroups.Resources, Isolation) error { return errOS }

func remedy(error) string { return "" }

func (s *spec) mountLabelRemedy(error) string { return "" }

func recoverEverything(context.Context, []Owner) (int, error) { return 0, errOS }

func (r *running) disown(*Process)                                           {}
func (c *Container) remove(context.Context) error                            { return errOS }
func (d StateDir) load(context.Context, string, []Owner) (*Container, error) { return nil, errOS }
func (d StateDir) list(context.Context) ([]Info, error)                      { return nil, errOS }
func (d StateDir) recover(context.Context, []Owner) (int, error)             { return 0, errOS }

func probe(context.Context) []Ability {
	return []Ability{{Area: "system", Name: "Linux", Answer: No, Reason: errOS.Error()}}
}

type recycling any

type recycler struct{}

func newRecycler(int) *recycler                        { return nil }
func (k *recycler) count() (namespaces, groups uint64) { return 0, 0 }
func (k *recycler) close() error                       { return nil }
func (c *Container) handOn()                           {}

func (c *Container) makeReady(context.Context) error { return errOS }
func (c *Container) alive() bool                     { return false }
func (c *Container) take(*spec, bool)                {}
func (c *Container) releaseReady(*attempt) error     { return errOS }
