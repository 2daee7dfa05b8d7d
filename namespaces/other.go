//go:build !linux

package namespaces

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
)

func unsupported(op string) error {
	return &Error{Op: op, Err: fmt.Errorf("%w on %s", ErrNotSupported, runtime.GOOS),
		Remedy: "namespaces exist on Linux only"}
}

// AutoIDMaps needs Linux.
func AutoIDMaps(MapStyle) (AutoMaps, error) { return AutoMaps{}, unsupported("choose id maps") }

// SingleIDMaps returns id 0 inside as the caller's effective user and group id.
func SingleIDMaps() IDMaps { return singleMaps(uint32(os.Geteuid()), uint32(os.Getegid())) }

// IDMapsOf needs Linux.
func IDMapsOf(int) (IDMaps, error) { return IDMaps{}, unsupported("read id maps") }

// WriteMaps needs Linux.
func WriteMaps(context.Context, int, *os.File, IDMaps) error { return unsupported("write id maps") }

// Open needs Linux.
func Open(Kind, string) (*os.File, error) { return nil, unsupported("open namespace") }

// Of needs Linux.
func Of(Kind, int) (*os.File, error) { return nil, unsupported("open namespace") }

// OfPIDFD needs Linux.
func OfPIDFD(Kind, *os.File) (*os.File, error) { return nil, unsupported("open namespace") }

// Current needs Linux.
func Current(Kind) (*os.File, error) { return nil, unsupported("open namespace") }

// ForChildren needs Linux.
func ForChildren(Kind, int) (*os.File, error) { return nil, unsupported("open namespace") }

// KindOf needs Linux.
func KindOf(*os.File) (Kind, error) { return 0, unsupported("inspect namespace") }

// IDOf needs Linux.
func IDOf(*os.File) (ID, error) { return ID{}, unsupported("inspect namespace") }

// IDOfProcess needs Linux.
func IDOfProcess(Kind, int) (ID, error) { return ID{}, unsupported("inspect namespace") }

// Same needs Linux.
func Same(_, _ *os.File) (bool, error) { return false, unsupported("inspect namespace") }

// OwnerUID needs Linux.
func OwnerUID(*os.File) (uint32, error) { return 0, unsupported("inspect namespace") }

// Parent needs Linux.
func Parent(*os.File) (*os.File, error) { return nil, unsupported("inspect namespace") }

// OwningUser needs Linux.
func OwningUser(*os.File) (*os.File, error) { return nil, unsupported("inspect namespace") }

// Do needs Linux.
func Do(func() error, ...Target) error { return unsupported("run a function in namespaces") }

// DoWithChildrenInPID needs Linux.
func DoWithChildrenInPID(Namespace, func() error) error {
	return unsupported("start children in a pid namespace")
}

// Pinned is a namespace that Pin mounted on a path.
type Pinned struct{}

// Path returns the path that the namespace is mounted on.
func (p *Pinned) Path() string { return "" }

// Unpin needs Linux.
func (p *Pinned) Unpin() error { return unsupported("unpin namespace") }

// Pin needs Linux.
func Pin(*os.File, string, Journal) (*Pinned, error) { return nil, unsupported("pin namespace") }

// Unpin needs Linux.
func Unpin(string) error { return unsupported("unpin namespace") }

// UndoPin needs Linux.
func UndoPin(context.Context, int, []byte) error { return unsupported("unpin namespace") }

// Probe needs Linux: elsewhere the answers are no.
func Probe(context.Context) Report {
	var r Report
	for _, k := range All() {
		v := Verdict{Answer: No, Err: unsupported("make " + k.String() + " namespace"), Remedy: "namespaces exist on Linux only"}
		r = append(r, Probed{k, v, v})
	}
	return r
}

type running struct{}

// Start needs Linux.
func (c *Cmd) Start() error { return unsupported("start process in namespaces") }

// Wait needs Linux.
func (c *Cmd) Wait() error { return unsupported("wait for process in namespaces") }

// Explain needs Linux.
func (c *Cmd) Explain(io.Writer) error { return unsupported("explain process in namespaces") }

// Pid returns 0.
func (c *Cmd) Pid() int { return 0 }

// Signal needs Linux.
func (c *Cmd) Signal(os.Signal) error { return unsupported("signal process in namespaces") }

// Namespace needs Linux.
func (c *Cmd) Namespace(Kind) (*os.File, error) { return nil, unsupported("open namespace") }
