package netns

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/caisson-go/caisson/internal/testutil/kills"
)

// givenBack gives the settings at the test's end the values that they have now: each switch comes before what it turns.
func givenBack(t testing.TB) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	l := kills.Settings(links)
	t.Cleanup(func() {
		for _, s := range l {
			path, value, _ := strings.Cut(s, " ")
			if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
				t.Error(err)
			}
		}
	})
}

// give gives a setting of the host a value until the test's end, when it gets the one that it had: those that were given last come first.
func give(t testing.TB, path, value string) {
	t.Helper()
	path = "/proc/sys/net/" + path
	was, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) { // no IPv6
		return
	}
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, was, 0); err != nil {
			t.Error(err)
		}
	})
}

// hardened gives the host values that are not what the kernel makes of them when forwarding is switched off.
func hardened(t testing.TB) {
	t.Helper()
	give(t, "ipv4/conf/all/accept_redirects", "0")
	for _, f := range []string{"ipv4/conf/lo/forwarding", "ipv4/conf/default/forwarding", "ipv6/conf/lo/forwarding", "ipv6/conf/default/forwarding"} {
		give(t, f, "1")
	}
}

func hostSetting(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// What the kernel sets together with forwarding is as before after the last container: what it would not set back by itself, too.
func TestSettingsRestored(t *testing.T) {
	hardened(t)
	nothingLeft(t)
	_, _, _ = world(t)
	give(t, "ipv4/conf/csworld/forwarding", "1")
	give(t, "ipv6/conf/csworld/forwarding", "1")
	before := kills.Host(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, a := connect(t, "a", Endpoint{Network: web})
	_, b := connect(t, "b", Endpoint{Network: newBridge(t, BridgeConfig{Name: "other"})})
	if got := hostSetting(t, "ipv4/ip_forward") + hostSetting(t, "ipv4/conf/all/accept_redirects"); got != "10" {
		t.Error("forwarding and redirects are", got)
	}
	changes, err := web.Changes(testContext(t))
	for _, c := range changes {
		if err != nil || c.Before == c.Now {
			t.Error(c, err)
		}
	}
	detach(t, a)
	detach(t, b)
	if after := kills.Host(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// What others have changed meanwhile is theirs.
func TestSettingsOfOthers(t *testing.T) {
	nothingLeft(t)
	give(t, "ipv4/conf/lo/forwarding", "1")
	give(t, "ipv4/conf/all/accept_redirects", "0")
	_, a := connect(t, "a", Endpoint{Network: newBridge(t, BridgeConfig{Name: "web"})})
	give(t, "ipv4/conf/lo/forwarding", "0")
	give(t, "ipv4/conf/all/accept_redirects", "1")
	detach(t, a)
	if got := hostSetting(t, "ipv4/ip_forward") + hostSetting(t, "ipv4/conf/lo/forwarding") + hostSetting(t, "ipv4/conf/all/accept_redirects"); got != "001" {
		t.Error("forwarding, that of lo, and redirects are", got)
	}
}

const masqueradingRules = `
table ip othernat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.30.0.0/16 counter masquerade
	}
}
`

// Who comes while forwarding is on finds it on, and does not have to switch it on: it is not switched off under him. What was there before relied on
// something else, or on nothing.
func TestForwardingStays(t *testing.T) {
	bridge := func(t *testing.T) {
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "othersbr", TxQLen: -1}}
		if err := netlink.LinkAdd(b); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(b) })
		address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 30, 0, 1), Mask: net.CIDRMask(16, 32)}}
		if err := errors.Join(netlink.AddrAdd(b, address), netlink.LinkSetUp(b)); err != nil {
			t.Fatal(err)
		}
	}
	rules := func(t *testing.T) {
		if _, err := exec.LookPath("nft"); err != nil {
			t.Skip("nft is not installed")
		}
		nft(t, masqueradingRules)
		t.Cleanup(func() { nft(t, "delete table ip othernat") })
	}
	tables := func(t *testing.T) {
		own := newBridge(t, BridgeConfig{Name: "elsewhere", StateDir: filepath.Join(t.TempDir(), "state")})
		connect(t, "c", Endpoint{Network: own})
	}
	for name, others := range map[string]func(*testing.T){"rules": rules, "bridge": bridge, "state directory": tables} {
		t.Run(name+" before", func(t *testing.T) {
			nothingLeft(t)
			if name == "state directory" { // that one switches it on
				givenBack(t)
				give(t, "ipv4/ip_forward", "1")
				give(t, "ipv6/conf/all/forwarding", "1")
			}
			before := hostSetting(t, "ipv4/ip_forward")
			others(t)
			_, c := connect(t, "a", Endpoint{Network: newBridge(t, BridgeConfig{Name: "web"})})
			detach(t, c)
			if got := hostSetting(t, "ipv4/ip_forward"); got != before {
				t.Error("forwarding is", got)
			}
		})
		t.Run(name+" since", func(t *testing.T) {
			hardened(t)
			nothingLeft(t)
			givenBack(t)
			_, c := connect(t, "a", Endpoint{Network: newBridge(t, BridgeConfig{Name: "web"})})
			others(t)
			detach(t, c)
			if got := hostSetting(t, "ipv4/ip_forward") + hostSetting(t, "ipv4/conf/all/accept_redirects"); got != "10" {
				t.Error("forwarding and redirects are", got)
			}
		})
	}
}
