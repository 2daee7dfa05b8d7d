package kills

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Host is all that networks may change of the host that is the calling thread's network namespace, as lines: devices with their addresses, routes, tables of nftables with
// the number of elements in their sets, settings, and files below /run/caisson but for locks and journals.
func Host(t testing.TB) string {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range links {
		out = append(out, "link "+l.Name)
		addrs, _ := l.Addrs()
		for _, a := range addrs {
			out = append(out, "addr "+l.Name+" "+a.String())
		}
	}
	out = append(out, routes(t)...)
	out = append(out, tables(t)...)
	out = append(out, Settings(links)...)
	_ = filepath.WalkDir("/run/caisson", func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Base(p) != "lock" && filepath.Ext(p) != ".journal" {
			out = append(out, "file "+p)
		}
		return nil
	})
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func routes(t testing.TB) (out []string) {
	t.Helper()
	l, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range l {
		if r.Dst != nil && !r.Dst.IP.IsLinkLocalUnicast() {
			out = append(out, "route "+r.Dst.String())
		}
	}
	return out
}

func tables(t testing.TB) (out []string) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range l {
		sets, err := c.GetSets(table)
		out = append(out, fmt.Sprint("table ", table.Name, err))
		for _, s := range sets {
			elems, err := c.GetSetElements(s)
			out = append(out, fmt.Sprint("set ", s.Name, len(elems), err))
		}
	}
	return out
}

// Settings are those that are changed with IP forwarding, as path below /proc/sys/net and value; each switch comes before what it turns.
func Settings(links []net.Interface) (out []string) {
	devices := []string{"all", "default"}
	for _, l := range links {
		devices = append(devices, l.Name)
	}
	files := []string{"ipv4/ip_forward"}
	for _, d := range devices {
		files = append(files, "ipv4/conf/"+d+"/forwarding", "ipv4/conf/"+d+"/accept_redirects", "ipv4/conf/"+d+"/route_localnet",
			"ipv6/conf/"+d+"/forwarding", "ipv6/conf/"+d+"/accept_redirects", "ipv6/conf/"+d+"/accept_ra")
	}
	for _, f := range files {
		if b, err := os.ReadFile("/proc/sys/net/" + f); err == nil {
			out = append(out, f+" "+strings.TrimSpace(string(b)))
		}
	}
	return out
}
