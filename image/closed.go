package image

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/caisson-go/caisson/namespaces"
)

// opener is openat2(2) by another process.
type opener interface {
	Open(dir int, path string, flags int, mode uint32, resolve uint64) (int, error)
}

// closedOpener opens for an ordinary user its own files that their modes close to it: as root of a user namespace that has the caller's ids alone. The process is made when it is first
// needed. A nil one opens nothing.
type closedOpener struct {
	ctx    context.Context
	mu     sync.Mutex
	owners *namespaces.Owners
}

// newClosedOpener returns nil for who may read all files. Close it.
func newClosedOpener(ctx context.Context) *closedOpener {
	if isPrivileged() {
		return nil
	}
	return &closedOpener{ctx: ctx}
}

// opener returns nil where there is none.
func (l *closedOpener) opener() opener {
	if l == nil {
		return nil
	}
	return l
}

func (l *closedOpener) close() {
	if l != nil && l.owners != nil {
		l.owners.Close()
	}
}

// Open implements opener. It makes no files.
func (l *closedOpener) Open(dir int, path string, flags int, _ uint32, resolve uint64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owners == nil {
		o, err := namespaces.NewOwners(l.ctx, namespaces.SingleIDMaps())
		if cause := context.Cause(l.ctx); cause != nil && err != nil {
			return -1, cause
		}
		if err != nil {
			return -1, fmt.Errorf("%w; and as root of a user namespace: %w", os.ErrPermission, err)
		}
		l.owners = o
	}
	return l.owners.Open(dir, path, flags, resolve)
}
