package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// roleWithout is a program that connects a namespace to networks of each kind, one after the other, and says how that ends.
func roleWithout() {
	ns, err := New()
	if err != nil {
		fmt.Println("error", err)
		return
	}
	defer ns.Close()
	try := func(what string, make func() (Network, error), e Endpoint) {
		n, err := make()
		if err == nil {
			e.Network = n
			var c *Connection
			if c, err = (&Networks{Endpoints: []Endpoint{e}}).Connect(context.Background(), ns, "without"); err == nil {
				err = c.Detach(context.Background())
			}
		}
		says := "else"
		switch {
		case err == nil:
			says = "made"
		case errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrPrivilege):
			says = "unsupported"
		case errors.Is(err, ErrPrivilege) && !errors.Is(err, ErrUnsupported):
			says = "privilege"
		}
		fmt.Println(what, says, err)
	}
	bridge := func(cfg BridgeConfig) func() (Network, error) {
		return func() (Network, error) { cfg.Name = "web"; return NewBridge(cfg) }
	}
	try("bridge", bridge(BridgeConfig{}), Endpoint{Ports: []Port{{Container: 80}}})
	try("internal", bridge(BridgeConfig{Internal: true}), Endpoint{})
	try("guarded", bridge(BridgeConfig{}), Endpoint{Egress: &Egress{Allow: []Destination{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}})
	try("routed", func() (Network, error) { return NewRouted(RoutedConfig{Name: "p2p"}) }, Endpoint{})
	try("lan", func() (Network, error) {
		return NewLAN(LANConfig{Name: "lan", Mode: MacvlanBridge, Parent: "csworld", Subnets: lanSubnets})
	}, Endpoint{})
	fmt.Println("done")
}

// Without nftables, or the privilege for it, networks that need it say which of both it is, and change nothing.
func TestWithoutRules(t *testing.T) {
	for _, c := range []struct {
		name     string
		restrict func() error
		want     string
	}{
		{"all", func() error { return nil }, "bridge made, internal made, guarded made, routed made, lan made, done"},
		{"no nftables", refuseNetfilter, "bridge unsupported, internal unsupported, guarded unsupported, routed unsupported, lan made, done"},
		{"no privilege", func() error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_ADMIN, 0, 0, 0) },
			"bridge privilege, internal privilege, guarded privilege, routed privilege, lan privilege, done"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nothingLeft(t)
			world(t)
			cmd := testutil.Role("without")
			out, err := outputOf(cmd, c.restrict)
			var got []string
			for line := range strings.Lines(out) {
				f := strings.Fields(line)
				got = append(got, strings.Join(f[:min(len(f), 2)], " "))
			}
			if err != nil || strings.Join(got, ", ") != c.want {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// outputOf runs a program that has what restrict takes from the thread by which it is started. That thread ends.
func outputOf(cmd *exec.Cmd, restrict func() error) (out string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = restrict(); err == nil {
			var b []byte
			b, err = cmd.Output()
			out = string(b)
		}
	}()
	<-done
	return out, err
}

// refuseNetfilter has socket(2) fail as on a kernel without netfilter's netlink, for the calling thread and whatever it starts.
func refuseNetfilter() error {
	const number, domain, protocol = 0, 16, 32 // where they stand in struct seccomp_data, on little-endian machines
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: value}
	}
	give := func(value uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value} }
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_SOCKET, 5),
		load(domain), unless(unix.AF_NETLINK, 3),
		load(protocol), unless(unix.NETLINK_NETFILTER, 1),
		give(unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)),
		give(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	return nil
}
