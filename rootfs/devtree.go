package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/caisson-go/caisson/internal/ahead"
)

// DevConfig says what a [DevTree] holds.
type DevConfig struct {
	// Mount is the tmpfs. Default: the one of [DefaultMounts] on /dev.
	Mount Mount
	// Devices and Links are made in it. Default, where both are empty: [DefaultDevices] and [DefaultLinks].
	Devices []Device
	Links   []Link
}

func (c DevConfig) withDefaults() DevConfig {
	if c.Mount.Type == 0 {
		mounts := DefaultMounts()
		c.Mount = mounts[(&Layout{Mounts: mounts}).devMount()]
	}
	if len(c.Devices)+len(c.Links) == 0 {
		c.Devices, c.Links = DefaultDevices(), DefaultLinks()
	}
	c.Devices, c.Links = slices.Clone(c.Devices), slices.Clone(c.Links)
	return c
}

func (c *DevConfig) validate() error {
	l := Layout{Mounts: []Mount{c.Mount}}
	if l.devMount() < 0 {
		return invalid("device tree", quoted(c.Mount.Target), "its mount is a tmpfs on /dev")
	}
	return errors.Join(append(append(c.Mount.faults(), deviceFaults(c.Devices)...), linkFaults(c.Links)...)...)
}

// DevTree is a /dev that was made before it is needed: a tmpfs with its device nodes and links, mounted nowhere. A [Layout] that
// has it as Dev attaches it instead of making one. It serves one container; for several, and for package caisson, there is [DevPool].
//
// It takes an open file, and ends when it is closed, or with the container.
type DevTree struct {
	file *os.File
	cfg  DevConfig
}

// NewDevTree makes one. It needs CAP_SYS_ADMIN and CAP_MKNOD in the initial user namespace, since nodes that were made
// elsewhere cannot be opened, and Linux 5.2; the error is an [*Error] with the errno.
func NewDevTree(c DevConfig) (*DevTree, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	f, err := makeDevTree(&c)
	if err != nil {
		return nil, err
	}
	return &DevTree{f, c}, nil
}

// File is the root of the tree. It stays the tree's. Its name is that of the input of a program that attaches it.
func (t *DevTree) File() *os.File { return t.file }

// Close ends a tree that is in no container, and only lets go of one that is.
func (t *DevTree) Close() error { return t.file.Close() }

// Fits reports whether a container gets the same /dev with the tree as without: the layout has the same tmpfs there, and at
// least the devices and links of the tree. What it has beyond those is made when the container starts.
func (t *DevTree) Fits(l *Layout) bool {
	i := l.devMount()
	if i < 0 || !l.Mounts[i].same(&t.cfg.Mount) {
		return false
	}
	for _, d := range t.cfg.Devices {
		if !slices.Contains(l.Devices, d) {
			return false
		}
	}
	for _, k := range t.cfg.Links {
		if !slices.Contains(l.Links, k) {
			return false
		}
	}
	return true
}

// DevPoolConfig says how many trees a [DevPool] keeps ready.
type DevPoolConfig struct {
	// Size is how many are kept ready: 1 to 1000.
	Size int
	// Tree is what each is.
	Tree DevConfig
}

const maxDevPool = 1000

// DevPool keeps trees of device nodes ready. Each is used once. One that waits costs the host program an open file, and the
// kernel some 20 KiB; nothing of it outlives the program.
//
// Its methods can be called from any number of goroutines. The zero DevPool is not usable: see [NewDevPool].
type DevPool struct {
	ready *ahead.Pool[*DevTree]
}

// ErrPoolClosed answers [DevPool.Get] after Close.
var ErrPoolClosed = errors.New("pool of device trees is closed")

// NewDevPool makes a pool and begins to fill it. Faults of c are reported at once, as errors that match [fs.ErrInvalid], and so is
// what NewDevTree cannot do here. The pool must be closed.
func NewDevPool(c DevPoolConfig) (*DevPool, error) {
	if c.Size < 1 || c.Size > maxDevPool {
		return nil, invalid("pool of device trees", fmt.Sprint(c.Size), "its size is not in 1..1000")
	}
	first, err := NewDevTree(c.Tree)
	if err != nil {
		return nil, err
	}
	if err := first.Close(); err != nil {
		return nil, err
	}
	return &DevPool{ahead.New(ahead.Config[*DevTree]{
		Size: c.Size, Closed: ErrPoolClosed, Drop: (*DevTree).Close,
		Make: func(context.Context) (*DevTree, error) { return NewDevTree(c.Tree) },
	})}, nil
}

// Get takes a tree, and waits for one until ctx ends if none is ready. The caller closes it. After Close the error matches [ErrPoolClosed].
func (p *DevPool) Get(ctx context.Context) (*DevTree, error) {
	t, err := p.ready.Next(ctx)
	p.ready.Poke()
	return t, err
}

// TryGet takes a tree if one is ready, without waiting; otherwise it returns nil.
func (p *DevPool) TryGet() *DevTree {
	t, _ := p.ready.Try()
	p.ready.Poke()
	return t
}

// DevPoolStats are counts of a [DevPool] since it was made.
type DevPoolStats struct {
	Ready                int    // that wait now
	Made, Failed, Missed uint64 // Missed: calls that found none ready
	LastError            error  // why the last attempt to make one failed; nil where it succeeded
}

// Stats tells how the pool fares.
func (p *DevPool) Stats() DevPoolStats { return DevPoolStats(p.ready.Stats()) }

// Close ends what waits. What was taken stays its taker's. Closing again waits for the same end.
func (p *DevPool) Close() error { return p.ready.Close() }
