//go:build !linux

package cni

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/caisson-go/caisson/netns"
)

func unsupported() error {
	return &Error{Op: "run plugins", Err: fmt.Errorf("%w on %s", netns.ErrUnsupported, runtime.GOOS), Remedy: "network namespaces exist on Linux only"}
}

func (n *Network) prepare(context.Context, netns.Request) (*Attachment, error) {
	return nil, unsupported()
}

func journalOf(j netns.Journal) (netns.Journal, error) { return j, unsupported() }

func (r *record) namespacePath() string { return "" }

func (r *record) call(string, *cached, *os.File) *call { return nil }

func (r *record) lock(context.Context) (*os.File, error) { return nil, unsupported() }

func (r *record) undo(context.Context) error { return unsupported() }

// GC needs Linux.
func (n *Network) GC(context.Context, ...string) (int, error) { return 0, unsupported() }
