package netns

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// resolvesBy has the host resolve names as two files say, for the test.
func resolvesBy(t testing.TB, host, systemd string) {
	t.Helper()
	was := [2]string{hostResolv, systemdResolv}
	dir := t.TempDir()
	hostResolv, systemdResolv = filepath.Join(dir, "host"), filepath.Join(dir, "systemd")
	t.Cleanup(func() { hostResolv, systemdResolv = was[0], was[1] })
	for path, text := range map[string]string{hostResolv: host, systemdResolv: systemd} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The host's resolvers, wherever they are: of the host's loopback addresses too where this program asks them for the container. Where the container has to ask by
// itself it gets those that it can reach, and its owner is told if there is none.
func TestHostResolvers(t *testing.T) {
	const stub, list = "nameserver 127.0.0.53\noptions edns0 trust-ad\n", "nameserver 192.0.2.53\nnameserver 192.0.2.54\n"
	for _, c := range []struct {
		name, host, systemd string
		at                  string // where the host's resolver is
		alone               string // resolv.conf of a container that asks by itself
	}{
		{"systemd-resolved", stub, list, "127.0.0.53", "nameserver 192.0.2.53\nnameserver 192.0.2.54\n"},
		{"a resolver on loopback", "nameserver 127.0.0.1\n", "", "127.0.0.1", ""},
		{"no nameserver", "search example.org\n", "", "127.0.0.1", "search example.org\n"},
		{"an empty file", "\n", "", "127.0.0.1", ""},
		{"no file", "", "", "127.0.0.1", ""},
		{"of the world", "nameserver 192.0.2.2\n", list, "", "nameserver 192.0.2.2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nothingLeft(t)
			resolvesBy(t, c.host, c.systemd)
			out, _, outside := world(t)
			if c.at == "" {
				fakeUpstream(t, out, outside[0])
			} else {
				host, err := Current()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { host.Close() })
				fakeUpstream(t, host, netip.MustParseAddr(c.at))
			}
			web := newBridge(t, BridgeConfig{Name: "web"})
			in, ci := prepared(t, &Networks{Endpoints: []Endpoint{{Network: web}}}, Request{ID: "attended"})
			if l, err := resolver(in, "udp").LookupHost(testContext(t), "www.example.org."); len(l) != 1 || l[0] != "198.51.100.7" {
				t.Error("forwarded:", l, err)
			}
			if l := ci.Warnings(); len(l) != 0 {
				t.Error(l)
			}
			resolv := func(l []File) string {
				for _, f := range l {
					if f.Path == "/etc/resolv.conf" {
						return string(f.Data)
					}
				}
				return "none"
			}
			a, err := (&Networks{Endpoints: []Endpoint{{Network: web}}}).Prepare(testContext(t), Request{ID: "unattended"})
			if err != nil {
				t.Fatal(err)
			}
			alone := a.(*Connection)
			t.Cleanup(func() { detach(t, alone) })
			alone.Record()
			pasta := &pastaAttachment{wish: &Pasta{}}
			for what, a := range map[string]interface {
				Files() []File
				Warnings() []Warning
			}{"detached": alone, "pasta": pasta} {
				if got := resolv(a.Files()); got != c.alone {
					t.Errorf("%s:\n%s", what, got)
				}
				l := a.Warnings()
				if none := !strings.Contains(c.alone, "nameserver"); none != (len(l) == 1) || none && !strings.Contains(l[0].Remedy, "DNS.Servers") {
					t.Error(what, l)
				}
			}
			pasta.wish = &Pasta{DNS: DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:53")}}}
			if l := pasta.Warnings(); len(l) != 0 {
				t.Error("with servers of its own:", l)
			}
		})
	}
}
