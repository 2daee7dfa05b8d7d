package netns

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Rules of the shape that Docker makes (ufw's are alike): what is forwarded is dropped unless it is let through by name.
const dockerRules = `
table ip filter {
	chain DOCKER-USER {
		counter return
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		oifname "docker0" ct state related,established counter accept
		iifname "docker0" oifname != "docker0" counter accept
	}
}
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade
	}
}
`

// Rules of the shape that firewalld makes: chains that refuse at their end what no zone allows.
const firewalldRules = `
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state established,related accept
		iifname "trusted0" accept
		reject with icmpx admin-prohibited
	}
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state established,related accept
		iifname "lo" accept
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
}
`

// Rules of the shape that ufw makes: a host that forwards and takes in nothing that it was not told to, in chains of chains.
const ufwRules = `
table ip filter {
	chain ufw-user-forward {
	}
	chain ufw-before-forward {
		ct state related,established counter accept
		icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } counter accept
		counter jump ufw-user-forward
	}
	chain ufw-before-logging-forward {
	}
	chain ufw-after-forward {
	}
	chain ufw-after-logging-forward {
		limit rate 3/minute burst 10 packets counter log prefix "[UFW BLOCK] "
	}
	chain ufw-before-input {
		iifname "lo" counter accept
		ct state related,established counter accept
		ct state invalid counter drop
	}
	chain INPUT {
		type filter hook input priority filter; policy drop;
		counter jump ufw-before-input
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump ufw-before-logging-forward
		counter jump ufw-before-forward
		counter jump ufw-after-forward
		counter jump ufw-after-logging-forward
	}
}
`

// Rules of the shape that podman's netavark makes for a network 10.88.0.0/16: nothing of others is dropped but what has lost its connection, and what goes
// from network to network of podman's.
const netavarkRules = `
table inet netavark {
	chain NETAVARK-ISOLATION-3 {
		oifname "podman0" drop
		jump NETAVARK-ISOLATION-2
	}
	chain NETAVARK-ISOLATION-2 {
	}
	chain NETAVARK-ISOLATION-1 {
		iifname "podman0" oifname != "podman0" jump NETAVARK-ISOLATION-2
	}
	chain nv_2f259bab_10_88_0_0_nm16 {
		ip daddr 10.88.0.0/16 accept
		ip daddr != 224.0.0.0/4 masquerade
	}
	chain nv_2f259bab_10_88_0_0_nm16_dnat {
		ip saddr 10.88.0.0/16 tcp dport 8080 jump NETAVARK-HOSTPORT-SETMARK
		tcp dport 8080 dnat ip to 10.88.0.2:80
	}
	chain NETAVARK-HOSTPORT-SETMARK {
		meta mark set meta mark | 0x00002000
	}
	chain NETAVARK-HOSTPORT-DNAT {
		tcp dport 8080 jump nv_2f259bab_10_88_0_0_nm16_dnat
	}
	chain INPUT {
		type filter hook input priority filter; policy accept;
		ip saddr 10.88.0.0/16 udp dport 53 accept
	}
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
		ct state invalid drop
		jump NETAVARK-ISOLATION-1
		ip daddr 10.88.0.0/16 ct state established,related accept
		ip saddr 10.88.0.0/16 accept
	}
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00002000 == 0x00002000 masquerade
		ip saddr 10.88.0.0/16 jump nv_2f259bab_10_88_0_0_nm16
	}
	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump NETAVARK-HOSTPORT-DNAT
	}
	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		fib daddr type local jump NETAVARK-HOSTPORT-DNAT
	}
}
`

func nft(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("nft", "-s", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// Other programs' rules are never touched. Where they drop what they do not know, so they do to our networks, until they are told otherwise in their own
// place. Neighbours are concerned only where bridges hand packets to these rules (br_netfilter).
func TestBesideOthers(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	for _, c := range []struct {
		name, rules     string
		tables          []string
		allow, obstacle string
		remedy          string
	}{
		{"docker", dockerRules, []string{"ip filter", "ip nat"}, `insert rule ip filter DOCKER-USER iifname "cs-web" accept; insert rule ip filter DOCKER-USER oifname "cs-web" accept`, "ip filter FORWARD", "iptables -I DOCKER-USER -i cs-web -j ACCEPT"},
		{"ufw", ufwRules, []string{"ip filter"}, `insert rule ip filter ufw-user-forward iifname "cs-web" accept; insert rule ip filter ufw-user-forward oifname "cs-web" accept`, "ip filter FORWARD", "ufw route allow in on cs-web"},
		{"firewalld", firewalldRules, []string{"inet firewalld"}, `insert rule inet firewalld filter_FORWARD iifname "cs-web" accept; insert rule inet firewalld filter_FORWARD oifname "cs-web" accept`, "inet firewalld filter_FORWARD", "--permanent"}, // a reload forgets the rest
	} {
		t.Run(c.name, func(t *testing.T) {
			nothingLeft(t)
			nft(t, c.rules)
			each := func(verb string) (out string) {
				for _, table := range c.tables {
					out += nft(t, verb+" table "+table)
				}
				return out
			}
			t.Cleanup(func() { each("delete") })
			_, host, outside := toWorld(t)
			web := newBridge(t, BridgeConfig{Name: "web"})
			a, ca := connect(t, "a", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080}}})
			echo(t, a, 80)
			b, _ := connect(t, "b", Endpoint{Network: web})
			silent(t, "the world", a.Dial, outside[0], 80)
			before := each("list")
			l, err := web.Obstacles(testContext(t))
			if err != nil || len(l) != 1 || l[0].String() != c.obstacle || !strings.Contains(l[0].Remedy, "cs-web") || !strings.Contains(l[0].Remedy, c.remedy) {
				t.Error(l, err)
			}
			_, cc := connect(t, "c", Endpoint{Network: web})
			if got := cc.Obstacles(); !slices.Equal(got, l) || len(cc.Warnings()) != 1 {
				t.Error(got, cc.Warnings())
			}
			detach(t, cc)
			if after := each("list"); after != before {
				t.Errorf("changed from\n%s\nto\n%s", before, after)
			}
			nft(t, c.allow)
			if l, err := web.Obstacles(testContext(t)); err != nil || len(l) != 0 {
				t.Error("after a rule for the bridge:", l, err)
			}
			says(t, "the world, when it was allowed", a.Dial, "tcp", outside[0], 80, host[0].String())
			says(t, "neighbours", b.Dial, "tcp", addresses(ca)[0], 80, "")
		})
	}
}

// Beside podman's rules, which drop nothing that is not podman's, everything works at once, and they stay as they are.
func TestBesideNetavark(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	nothingLeft(t)
	nft(t, netavarkRules)
	t.Cleanup(func() { nft(t, "delete table inet netavark") })
	before := nft(t, "list table inet netavark")
	out, host, outside := toWorld(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	a, ca := connect(t, "a", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8081}}})
	echo(t, a, 80)
	b, _ := connect(t, "b", Endpoint{Network: web})
	if l, err := web.Obstacles(testContext(t)); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	for i, w := range outside {
		says(t, "the world", a.Dial, "tcp", w, 80, host[i].String())
		says(t, "a published port", out.Dial, "tcp", host[i], 8081, w.String())
		says(t, "neighbours", b.Dial, "tcp", addresses(ca)[i], 80, "")
	}
	detach(t, ca)
	if after := nft(t, "list table inet netavark"); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
}
