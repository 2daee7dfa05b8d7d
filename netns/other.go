//go:build !linux

package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
)

func unsupported(op string) error {
	return &Error{Op: op, Err: fmt.Errorf("%w on %s", ErrUnsupported, runtime.GOOS), Remedy: "network namespaces exist on Linux only"}
}

// New needs Linux.
func New() (*Namespace, error) { return nil, unsupported("make network namespace") }

// NewNamed needs Linux.
func NewNamed(string) (*Namespace, error) { return nil, unsupported("make network namespace") }

// Current needs Linux.
func Current() (*Namespace, error) { return nil, unsupported("open network namespace") }

// OfPID needs Linux.
func OfPID(int) (*Namespace, error) { return nil, unsupported("open network namespace") }

// Named needs Linux.
func Named(string) (*Namespace, error) { return nil, unsupported("open network namespace") }

// Open needs Linux.
func Open(string) (*Namespace, error) { return nil, unsupported("open network namespace") }

// Remove needs Linux.
func Remove(string) error { return unsupported("remove network namespace") }

// List needs Linux.
func List() ([]string, error) { return nil, unsupported("list network namespaces") }

// LoopbackUp needs Linux.
func (n *Namespace) LoopbackUp() error { return unsupported("raise loopback device") }

// Cookie needs Linux.
func (n *Namespace) Cookie() (uint64, error) { return 0, unsupported("identify network namespace") }

// Do needs Linux.
func (n *Namespace) Do(func() error) error { return unsupported("enter network namespace") }

// Pin needs Linux.
func (n *Namespace) Pin(string) error { return unsupported("name network namespace") }

func (n *Networks) prepare(context.Context, *Connection) error {
	return unsupported("connect to network")
}

func (n *Networks) join(context.Context, *Namespace) (*Connection, error) {
	return nil, unsupported("connect to network")
}

func (n *Networks) leave(context.Context, *Namespace) error {
	return unsupported("disconnect from network")
}

func (n *Networks) wait(context.Context, *Namespace) (*Connection, error) {
	return nil, unsupported("connect to network")
}

func (c *Connection) take(context.Context, string, [][]string) error {
	return unsupported("connect to network")
}

// Record needs Linux.
func (c *Connection) Record() (owner string, version int, data []byte) {
	return ownerName, recordVersion, nil
}

// Attach needs Linux.
func (c *Connection) Attach(context.Context, Target) error { return unsupported("connect to network") }

// Detach needs Linux.
func (c *Connection) Detach(context.Context) error { return unsupported("disconnect from network") }

func (c *Connection) neighbours() []*epState { return nil }

func (o *ConnectionOwner) undo(context.Context, *record) error {
	return unsupported("disconnect from network")
}

// FromFile needs Linux.
func FromFile(*os.File) (*Namespace, error) { return nil, unsupported("open network namespace") }

// Changes needs Linux.
func (b *Bridge) Changes(context.Context) ([]Change, error) { return nil, unsupported("list changes") }

// Endpoints needs Linux.
func (b *Bridge) Endpoints(context.Context) ([]Status, error) {
	return nil, unsupported("list endpoints")
}

func (c *BridgeConfig) listEndpoints(context.Context) ([]Status, error) {
	return nil, unsupported("list endpoints")
}

// Obstacles needs Linux.
func (b *Bridge) Obstacles(context.Context) ([]Obstacle, error) {
	return nil, unsupported("list chains")
}

func (p *Pasta) prepare(context.Context, Request) (*pastaAttachment, error) {
	return nil, unsupported("use pasta")
}

// Attach needs Linux.
func (a *pastaAttachment) Attach(context.Context, Target) error { return unsupported("use pasta") }

// Detach needs Linux.
func (a *pastaAttachment) Detach(context.Context) error { return unsupported("use pasta") }

// Traffic needs Linux.
func (b *Bridge) Traffic(context.Context) ([]Traffic, error) {
	return nil, unsupported("count traffic")
}

// Traffic needs Linux.
func (c *Connection) Traffic(context.Context) ([]Traffic, error) {
	return nil, unsupported("count traffic")
}

func packetSocket(string, uint16) (*os.File, error) { return nil, unsupported("open packet socket") }

func (n *Namespace) orBySocket(_, _ func() error) error {
	return unsupported("enter network namespace")
}

func (n *Namespace) dialSocket(context.Context, string, string) (net.Conn, error) {
	return nil, unsupported("connect")
}

func (n *Namespace) listenSocket(context.Context, string, string) (net.Listener, error) {
	return nil, unsupported("listen")
}

func (n *Namespace) listenPacketSocket(context.Context, string, string) (net.PacketConn, error) {
	return nil, unsupported("listen")
}

func (n *Namespace) packetSocket(string, uint16) (*os.File, error) {
	return nil, unsupported("open packet socket")
}

func numberZone(_, _, address string) (string, error) { return address, nil }
