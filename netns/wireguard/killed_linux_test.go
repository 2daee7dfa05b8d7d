package wireguard

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
)

// roleOverlay is a program that connects a namespace to an encrypted overlay and disconnects it again, to be killed.
func roleOverlay() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	carrier, err := New(Config{})
	fail(err)
	o, err := netns.NewOverlay(netns.OverlayConfig{Name: "web", Subnets: prefixes("10.0.0.0/16"), Ranges: prefixes("10.0.1.0/24"), VNI: 7, Local: netip.MustParseAddr("192.0.2.1"),
		Peers: netns.NewPeerStore(netns.Directory(os.Getenv("CAISSON_TEST_PEERS")), "web/"), Carrier: carrier})
	fail(err)
	ns, err := netns.New()
	fail(err)
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: o}}}).Connect(context.Background(), ns, "killed")
	fail(err)
	fmt.Println("made")
	fail(c.Detach(context.Background()))
	fmt.Println("done")
}

// left is what a connection may leave: devices, routes, rules and files.
func left(t testing.TB) string {
	t.Helper()
	var out []string
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out = append(out, "link "+l.Name)
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsLinkLocalUnicast() {
			out = append(out, "route "+r.String())
		}
	}
	for _, path := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		b, err := os.ReadFile(path)
		out = append(out, fmt.Sprint(path, strings.TrimSpace(string(b)), err))
	}
	_ = filepath.WalkDir("/run/caisson", func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Base(p) != "lock" && filepath.Ext(p) != ".journal" {
			out = append(out, "file "+p)
		}
		return nil
	})
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// The program is killed at a system call of any of its threads; each time the recovery leaves the host as it was, without the device that encrypts and its key.
// CAISSON_TEST_KILL_STEP says by how many calls the moments lie apart.
func TestKilled(t *testing.T) {
	if err := newCarrier(t).Probe(); errors.Is(err, netns.ErrUnsupported) {
		t.Skip("this kernel has no wireguard")
	} else if err != nil {
		t.Fatal(err)
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", TxQLen: -1}, PeerName: "eth1"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	if err := errors.Join(netlink.LinkSetUp(link), netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}})); err != nil {
		t.Fatal(err)
	}
	dir, peers := t.TempDir(), t.TempDir()
	kill := func(n int) (said string, calls int) {
		t.Helper()
		out, err := os.CreateTemp(dir, "out")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := testutil.Role("overlay", "CAISSON_TEST_PEERS="+peers)
		cmd.Stdout = out
		if calls, err = testutil.KillAt(cmd, n, testTime/2); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b), calls
	}
	before := left(t)
	said, total := kill(math.MaxInt)
	if !strings.Contains(said, "done") {
		t.Fatalf("it does not get to its end: %s", said)
	}
	kills := 10
	if testing.Short() || testutil.Slow() {
		kills = 5
	}
	step := func() int {
		if n, err := strconv.Atoi(os.Getenv("CAISSON_TEST_KILL_STEP")); err == nil && n > 0 {
			return n
		}
		return max(1, total/kills) + rand.IntN(3) // each run of the test finds other moments
	}
	runs, undone := 0, 0
	for n := 1; ; n += step() {
		said, calls := kill(n)
		undone += recoverAll(t, n)
		if after := left(t); after != before {
			t.Fatalf("killed at system call %d, which said %q. Before:\n%s\nafter:\n%s", n, said, before, after)
		}
		if strings.Contains(said, "error") {
			t.Fatalf("killed at %d: %s", n, said)
		}
		if calls < n {
			break
		}
		runs++
	}
	t.Logf("%d kills of some %d system calls, %d with something to undo", runs, total, undone)
}

func recoverAll(t *testing.T, n int) int {
	t.Helper()
	dir, err := journal.Dir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	undone, err := journal.Recover(testContext(t), dir, map[string]journal.Undoer{netns.Owner().Name(): netns.Owner()})
	if err != nil {
		t.Errorf("killed at %d: %v", n, err)
	}
	return undone
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}
