package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// linkKinds make a network of each kind whose device is in the container, and which the test of other kinds has not.
var linkKinds = map[string]func(name string, subnets []netip.Prefix) (Network, error){
	"tap": func(name string, subnets []netip.Prefix) (Network, error) {
		return NewTun(TunConfig{Name: name, TAP: true, Subnets: subnets, Open: func(f *os.File, _ Status) error { return f.Close() }})
	},
	"tun": func(name string, subnets []netip.Prefix) (Network, error) {
		return NewTun(TunConfig{Name: name, Subnets: subnets, Open: func(*os.File, Status) error { return nil }}) // until the program ends
	},
	"vlan": func(name string, subnets []netip.Prefix) (Network, error) {
		return NewLAN(LANConfig{Name: name, Mode: VLANDevice, Parent: "csworld", VLAN: 7, Subnets: subnets})
	},
	"macvlan on a VLAN": func(name string, subnets []netip.Prefix) (Network, error) {
		return NewLAN(LANConfig{Name: name, Mode: MacvlanBridge, Parent: "csworld", VLAN: 8, Subnets: subnets})
	},
	"ipvlan on a VLAN": func(name string, subnets []netip.Prefix) (Network, error) {
		return NewLAN(LANConfig{Name: name, Mode: IpvlanL3S, Parent: "csworld", VLAN: 9, Subnets: subnets})
	},
	"ipvlan": func(name string, subnets []netip.Prefix) (Network, error) {
		return NewLAN(LANConfig{Name: name, Mode: IpvlanL2, Parent: "csworld", Subnets: subnets})
	},
}

// linksEnv names the variable that says which of them, separated by commas.
const linksEnv = "CAISSON_TEST_LINKS"

// roleLinks is a program that connects a namespace to networks of those kinds and disconnects it again, to be killed.
func roleLinks() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	n := &Networks{}
	for i, kind := range strings.Split(os.Getenv(linksEnv), ",") {
		w, err := linkKinds[kind](fmt.Sprintf("link%d", i), []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.67.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd67:%d::/64", i))})
		fail(err)
		n.Endpoints = append(n.Endpoints, Endpoint{Network: w})
	}
	ns, err := New()
	fail(err)
	c, err := n.Connect(context.Background(), ns, "killed")
	fail(err)
	fmt.Println("made")
	fail(c.Detach(context.Background()))
	fmt.Println("done")
}

// The program is killed at a system call of any of its threads; each time the recovery leaves the host as it was. The kinds of devices are those that this
// kernel has.
func TestLinksKilled(t *testing.T) {
	for _, kinds := range [][]string{{"tap", "tun"}, {"vlan", "macvlan on a VLAN", "ipvlan on a VLAN"}, {"ipvlan"}} {
		t.Run(strings.Join(kinds, " and "), func(t *testing.T) {
			for _, k := range kinds {
				switch {
				case k == "tap" || k == "tun":
					needTun(t)
				case strings.Contains(k, "ipvlan") && probeKind(kindIpvlan) != nil:
					t.Skip("this kernel has no ipvlan")
				case strings.Contains(strings.ToLower(k), "vlan") && k != "ipvlan" && probeKind(kindVLAN) != nil:
					t.Skip("this kernel has no vlan")
				}
			}
			t.Setenv(linksEnv, strings.Join(kinds, ","))
			nothingLeft(t)
			world(t)
			awaitLinkLocal(t)
			killedEach(t, "links", 24, func(n int) {
				if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), "/caisson/netns/") {
					t.Fatalf("killed at system call %d: a mount is left", n)
				}
			})
		})
	}
}
