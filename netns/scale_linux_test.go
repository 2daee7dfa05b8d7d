package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A bridge has 1023 ports and no more: who comes then is told so, and nothing of him is left.
func TestBridgeFull(t *testing.T) {
	host := newNS(t)
	web := newBridge(t, BridgeConfig{Name: "web", Host: host, StateDir: filepath.Join(t.TempDir(), "state")})
	connectTo := func() (*Connection, error) {
		return (&Networks{Endpoints: []Endpoint{{Network: web}}}).Connect(testContext(t), newNS(t), "")
	}
	first, err := connectTo()
	if err != nil {
		t.Fatal(err)
	}
	defer detach(t, first)
	far := newNS(t)
	// Many devices whose other ends are elsewhere; they go with the namespaces.
	err = host.Do(func() error {
		h, err := routeHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		bridge, err := h.LinkByName("cs-web")
		if err != nil {
			return err
		}
		for i := range 1022 {
			v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("f", i), MasterIndex: bridge.Attrs().Index, TxQLen: -1},
				PeerName: fmt.Sprint("p", i), PeerNamespace: netlink.NsFd(int(far.File().Fd()))}
			if err := h.LinkAdd(v); err != nil {
				return fmt.Errorf("port %d: %w", i+2, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = connectTo()
	if !errors.Is(err, ErrExhausted) || !errors.Is(err, unix.EXFULL) || !strings.Contains(err.Error(), "BR_MAX_PORTS") {
		t.Error(err)
	}
	if l, err := web.Endpoints(testContext(t)); err != nil || len(l) != 1 {
		t.Error(l, err)
	}
}

// TestScale connects as many namespaces as CAISSON_TEST_SCALE says, a thousand to a network, each with a published port, and tells what the first and the last
// of each network took.
func TestScale(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("CAISSON_TEST_SCALE"))
	if err != nil || n <= 0 {
		n = 30
	}
	nothingLeft(t)
	const each = 1000
	var all []*Connection
	var spaces []*Namespace
	defer func() {
		began := time.Now()
		for i, c := range all {
			detach(t, c)
			spaces[i].Close()
		}
		t.Logf("%d disconnected in %v", len(all), time.Since(began).Round(time.Millisecond))
	}()
	for i := 0; i < n; i += each {
		web := newBridge(t, BridgeConfig{Name: fmt.Sprint("scale", i/each)})
		var took, work []time.Duration
		for j := range min(each, n-i) {
			ns, err := New()
			if err != nil {
				t.Fatal(err)
			}
			began, spent := time.Now(), processTime(t)
			c, err := (&Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Container: 80}}}}}).Connect(t.Context(), ns, fmt.Sprint("c", j))
			if err != nil {
				ns.Close()
				t.Fatalf("%d: %v", i+j, err)
			}
			took, work = append(took, time.Since(began)), append(work, processTime(t)-spent)
			all, spaces = append(all, c), append(spaces, ns)
		}
		part := max(1, len(took)/20)
		t.Logf("%s: median of the first %d %v (%v of the processor), of the last %d %v (%v)", web.Name(), part, median(took[:part]), median(work[:part]),
			part, median(took[len(took)-part:]), median(work[len(work)-part:]))
		last := all[len(all)-1]
		l, err := spaces[len(all)-1].Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range last.states[0].Gateways {
			if c, err := dial(t.Context(), "tcp", netip.AddrPortFrom(g, last.Status()[0].Ports[0].Host).String()); err != nil {
				t.Error(err)
			} else {
				c.Close()
			}
		}
		l.Close()
	}
	if l, err := net.Interfaces(); err != nil || len(l) < len(all) {
		t.Error(len(l), err)
	}
}

// processTime is the processor's time that this program has used, which other programs do not make longer as they do the time that passes.
func processTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(l []time.Duration) time.Duration {
	l = slices.Sorted(slices.Values(l))
	return l[len(l)/2]
}
