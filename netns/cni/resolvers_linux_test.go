package cni

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/netns"
)

// A container gets those of the resolvers that it can reach, and its owner is told if there is none.
func TestResolvers(t *testing.T) {
	const stub, list, own = "nameserver 127.0.0.53\nnameserver ::1\nsearch example.org\n", "nameserver 192.0.2.53\n", `,"dns":{"nameservers":["192.0.2.9"]}`
	dir := script(t, "p", answer)
	was := hostResolv
	t.Cleanup(func() { hostResolv = was })
	for _, c := range []struct {
		name, host, systemd, list string
		options                   Options
		want                      string
		warned                    bool
	}{
		{"loopback only", stub, "", "", Options{}, "search example.org\n", true},
		{"link-local only", "nameserver fe80::1%eth0\nnameserver fe80::1\n", "", "", Options{}, "", true},
		{"no file", "", "", "", Options{}, "", true},
		{"systemd-resolved", stub, list, "", Options{}, "nameserver 192.0.2.53\nsearch example.org\n", false},
		{"systemd-resolved without any", stub, "search example.net\n", "", Options{}, "search example.org\n", true},
		{"of the world", "nameserver 192.0.2.2\n", list, "", Options{}, "nameserver 192.0.2.2\n", false},
		{"the list's", stub, "", own, Options{}, "nameserver 192.0.2.9\n", false},
		{"the options'", stub, "", own, Options{DNS: netns.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.8:53")}}}, "nameserver 192.0.2.8\n", false},
		{"no files", stub, "", "", Options{NoFiles: true}, "none", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			hostResolv = nil
			for i, text := range []string{c.host, c.systemd} {
				hostResolv = append(hostResolv, filepath.Join(t.TempDir(), "resolv.conf"))
				if text == "" {
					continue
				}
				if err := os.WriteFile(hostResolv[i], []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c.options.Path = []string{dir}
			n := newNetwork(t, mustParse(t, `{"cniVersion":"1.0.0","name":"n","type":"p"`+c.list+`}`), c.options)
			a, err := n.Prepare(testContext(t), netns.Request{ID: "x"})
			if err != nil {
				t.Fatal(err)
			}
			got := "none"
			for _, f := range a.Files() {
				if f.Path == "/etc/resolv.conf" {
					got = string(f.Data)
				}
			}
			if got != c.want {
				t.Errorf("%q", got)
			}
			l := a.(interface{ Warnings() []netns.Warning }).Warnings() // as caisson.WarningAttachment
			if c.warned != (len(l) == 1) || c.warned && (l[0].Name != "names of the world" || !strings.Contains(l[0].Remedy, "DNS.Servers")) {
				t.Error(l)
			}
		})
	}
}
