package netns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
)

func TestLimitsValidate(t *testing.T) {
	for _, c := range []struct {
		l    Limits
		want string
	}{
		{Limits{}, ""},
		{Limits{Download: Rate{BitsPerSecond: 8000, Burst: 2048}, Upload: Rate{BitsPerSecond: maxRate}, Delay: time.Minute, Jitter: time.Minute, Loss: 1}, ""},
		{Limits{Download: Rate{BitsPerSecond: 7999}}, "Download: 7999 bits"},
		{Limits{Upload: Rate{BitsPerSecond: maxRate + 1}}, "Upload: "},
		{Limits{Upload: Rate{Burst: 4096}}, "Upload: 0 bits"},
		{Limits{Upload: Rate{BitsPerSecond: 8000, Burst: 1}}, "burst of 1 bytes"},
		{Limits{Delay: -1}, "delay of -1ns"},
		{Limits{Delay: 2 * time.Minute}, "delay of 2m0s"},
		{Limits{Jitter: 1}, "jitter of 1ns"},
		{Limits{Loss: 1.5}, "loss of 1.5"},
	} {
		err := (&Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"}), Limits: c.l}}}).Validate()
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.l, err, c.want)
		}
	}
}

// carry sends size bytes between a namespace and the host and tells how long it took until the last has arrived.
func carry(t *testing.T, ns *Namespace, at netip.Addr, size int, up bool) time.Duration {
	t.Helper()
	l, err := ns.Listen(testContext(t), "tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	outside, err := dial(testContext(t), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	inside := <-accepted
	if inside == nil {
		t.Fatal("not accepted")
	}
	defer inside.Close()
	from, to := outside, inside
	if up {
		from, to = inside, outside
	}
	began := time.Now()
	go func() {
		_, _ = from.Write(make([]byte, size))
		_ = from.(*net.TCPConn).CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, to); n != int64(size) || err != nil {
		t.Fatal(n, err)
	}
	return time.Since(began)
}

// Both directions take at least as long as the limit says, each by its own; and the counters see it.
func TestLimits(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	const size, rate = 400 << 10, 8 << 20 // 1 MiB a second: 400 KiB beyond the burst of 64 KiB take 0.33 s
	least := 300 * time.Millisecond
	for name, l := range map[string]Limits{
		"download": {Download: Rate{BitsPerSecond: rate}},
		"upload":   {Upload: Rate{BitsPerSecond: rate}},
		"both":     {Download: Rate{BitsPerSecond: rate}, Upload: Rate{BitsPerSecond: rate}},
	} {
		t.Run(name, func(t *testing.T) {
			ns, c := connect(t, "limited", Endpoint{Network: web, Limits: l})
			at := addresses(c)[0]
			if took := carry(t, ns, at, size, false); l.Download.BitsPerSecond > 0 && took < least {
				t.Errorf("down: %v", took)
			}
			if took := carry(t, ns, at, size, true); l.Upload.BitsPerSecond > 0 && took < least {
				t.Errorf("up: %v", took)
			}
			all, err := web.Traffic(testContext(t))
			own, err2 := c.Traffic(testContext(t))
			if err != nil || err2 != nil || len(all) != 1 || len(own) != 1 {
				t.Fatal(all, own, err, err2)
			}
			for _, n := range []Traffic{all[0], own[0]} {
				if n.Container != "limited" || n.Network != "web" || n.Interface != "eth0" || n.ReceivedBytes < size || n.SentBytes < size || n.ReceivedPackets == 0 || n.SentPackets == 0 {
					t.Errorf("%+v", n)
				}
			}
		})
	}
}

// What the kernel lacks is found before anything is made.
func TestDelay(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	l := Limits{Delay: 100 * time.Millisecond, Jitter: time.Millisecond, Download: Rate{BitsPerSecond: 100 << 20}}
	if err := checkLimits(&l); err != nil {
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_NET_SCH_NETEM") {
			t.Fatal(err)
		}
		_, err := (&Networks{Endpoints: []Endpoint{{Network: web, Limits: l}}}).Connect(testContext(t), newNS(t), "slow")
		if !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
		return
	}
	ns, c := connect(t, "slow", Endpoint{Network: web, Limits: l})
	if took := carry(t, ns, addresses(c)[0], 1<<10, false); took < 99*time.Millisecond {
		t.Errorf("a round trip in %v", took)
	}
}

// A device that stops being limited leaves the chains of others.
func TestForwardTable(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	e := Endpoint{Network: web, Limits: Limits{Upload: Rate{BitsPerSecond: 1e6}}}
	_, a := connect(t, "a", e)
	_, b := connect(t, "b", e)
	chains := func() (n int) {
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	if n := chains(); n != 2 {
		t.Errorf("%d chains", n)
	}
	detach(t, a)
	if n := chains(); n != 1 {
		t.Errorf("%d chains", n)
	}
	detach(t, b)
	if n := chains(); n != 0 {
		t.Errorf("%d chains", n)
	}
}
