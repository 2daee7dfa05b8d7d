//go:build linux

package examples_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/caisson-go/caisson/netns"
)

func TestNet(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "net").want(t, 0, `^   web    has: lo 127\.0\.0\.1/8, eth0 10\.0\.2\.2/24$`, `^   host   has: .*cs-lan 10\.0\.2\.1/24, cs`, `^   client to web: web says: you are 10\.0\.2\.3$`,
			`^   client to the world: the world says: you are 192\.0\.2\.2$`, `^   the world to port 8080 of the host: web says: you are 192\.0\.2\.1$`, `^   the world to web itself: no: `)
	})
}

// TestRunNetwork runs containers on a bridge, in a network namespace that plays the host.
func TestRunNetwork(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		if !c.root() {
			c.run(t, "run", "-net", "bridge", "true").wantErr(t, 125, `not privileged: .*CAP_NET_ADMIN`)
			c.run(t, "run", "-p", "80", "true").wantErr(t, 125, `need -net bridge`)
			c.run(t, "run", "-net", "pasta", "-p", "80", "-ip", "10.0.0.1", "true").wantErr(t, 125, `-ip, -mac and -alias need -net bridge`)
			return
		}
		host, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		run := func(args ...string) (r result) {
			_ = host.Do(func() error { r = finish(t, c.command(t, "run", args...)); return nil })
			return r
		}
		const show = `cat /etc/hosts /etc/hostname /etc/resolv.conf /sys/class/net/eth0/address`
		r := run("-net", "bridge:examples", "-p", "8080:80", "-p", "127.0.0.1::53/udp", "-mac", "0a:00:00:00:00:01", "-id", "web", "-add-host", "printer:192.0.2.9", "-dns", "192.0.2.53", "-alias", "www", "--", "sh", "-c", show)
		r.want(t, 0, `^10\.[\d.]+\tweb www$`, `^192\.0\.2\.9\tprinter$`, `^web$`, `^nameserver 127\.0\.0\.11$`, `^0a:00:00:00:00:01$`)
		r.wantErr(t, 0, `^  eth0 is on network examples with \[10\.`, `^  port 8080/tcp of the host leads to 80$`, `^  port \d+/udp of the host leads to 53$`)

		r = run("-net", "bridge:examples", "-P", "-store", filepath.Join(c.dir, "store"), "-image", "archive:"+imageArchive(t, c))
		r.wantErr(t, 0, `^  port \d+/udp of the host leads to 53$`, `^  port \d+/tcp of the host leads to 80$`)
		run("-P", "true").wantErr(t, 125, `-P needs -image`)

		parent, world := uplink(t, host)
		r = run("-net", "macvlan:"+parent, "-subnet", "192.0.2.0/24", "-ip", "192.0.2.7", "--", "busybox", "ip", "-o", "addr", "show", "eth0")
		r.want(t, 0, `192\.0\.2\.7/24`)
		run("-net", "device:"+parent, "--", "busybox", "ip", "-o", "addr", "show", "eth0").want(t, 0, `192\.0\.2\.2/24`)
		run("-net", "routed", "-p", "8081:80", "true").wantErr(t, 0, `^  eth0 is on network run-routed with \[10\.[\d.]+/32`, `^  port 8081/tcp of the host leads to 80$`)
		run("-net", "macvlan:nowhere", "true").wantErr(t, 125, `not found: parent: network device nowhere`)
		run("-net", "macvlan:"+parent, "-p", "80", "true").wantErr(t, 125, `need -net bridge`)
		run("-net", "cni:none-of-that-name", "true").wantErr(t, 125, `not found`)
		run("-network", "bridge:fixed", "-subnet", "10.99.7.0/24", "-ip", "10.99.7.9", "--", "busybox", "ip", "-o", "addr", "show", "eth0").want(t, 0, `inet 10\.99\.7\.9/24 `)
		run("-net", "bridge:fixed", "-subnet", "10.99.7.0/24", "-ip", "10.99.8.9", "true").wantErr(t, 125, `10\.99\.8\.9`)
		resolver(t, world, "www.example.org.", "198.51.100.7")
		run("-net", "bridge:examples", "-dns", "192.0.2.1", "--", "busybox", "nslookup", "www.example.org").want(t, 0, `^Address: +198\.51\.100\.7$`)
		named := nameNamespace(t, world)
		run("-net", "netns:"+named, "--", "busybox", "ip", "-o", "addr", "show").want(t, 0, `192\.0\.2\.1/24`)
		run("-net", "netns:"+named+"-not", "true").wantErr(t, 125, named+"-not")

		id := "caisson-examples-" + filepath.Base(c.dir)
		run("-q", "-detach", "-id", id, "-net", "bridge:examples", "--", "sleep", "1000").want(t, 0, id)
		state, err := host.Cookie()
		if err != nil {
			t.Fatal(err)
		}
		if l, _ := filepath.Glob(stateOf(state) + "/networks/examples/ep/*"); len(l) != 1 {
			t.Errorf("endpoints of a detached container: %q", l)
		}
		run("-rm", id).want(t, 0)
		// With -restart the network is that of the process that stays, which carries what comes to a loopback address.
		run("-q", "-detach", "-id", id, "-restart", "always", "-net", "bridge:examples", "-p", "127.0.0.1:8090:80", "-add-host", "printer:192.0.2.9", "--", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc").want(t, 0, id)
		web := http.Client{Transport: &http.Transport{DialContext: host.Dial, DisableKeepAlives: true}, Timeout: time.Minute}
		var text []byte
		for end := time.Now().Add(time.Minute); len(text) == 0; time.Sleep(20 * time.Millisecond) {
			resp, err := web.Get("http://127.0.0.1:8090/hosts")
			if err == nil {
				text, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
		if !strings.Contains(string(text), "192.0.2.9\tprinter") {
			t.Errorf("from a container that is started again: %q", text)
		}
		run("-rm", id).want(t, 0)
		if _, err := os.Stat(stateOf(state)); !os.IsNotExist(err) {
			t.Errorf("left: %v", err)
		}
	})
}

// stateOf is where the networks of a host namespace are recorded.
func stateOf(cookie uint64) string { return "/run/caisson/netns/" + strconv.FormatUint(cookie, 10) }

// nameNamespace gives a namespace a name, as ip netns does but without a mount, which would be the machine's.
func nameNamespace(t *testing.T, ns *netns.Namespace) string {
	t.Helper()
	if err := os.Mkdir("/run/netns", 0o755); err == nil {
		t.Cleanup(func() { _ = os.Remove("/run/netns") })
	} else if !os.IsExist(err) {
		t.Fatal(err)
	}
	name := "caisson-examples-" + strconv.Itoa(os.Getpid())
	if err := os.Symlink(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File().Fd()), "/run/netns/"+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove("/run/netns/" + name) })
	return name
}

// resolver answers in a namespace, on port 53, that a name has an address of IPv4, and all others none.
func resolver(t *testing.T, ns *netns.Namespace, name, address string) {
	t.Helper()
	p, err := ns.ListenPacket(context.Background(), "udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	go func() {
		for b := make([]byte, 2048); ; {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q.Name.String() == name && q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()}}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = p.WriteTo(answer, from)
			}
		}
	}()
}

// uplink gives the host a device with an address of 192.0.2.0/24, and returns its name, and the namespace beyond, which has 192.0.2.1.
func uplink(t *testing.T, host *netns.Namespace) (device string, world *netns.Namespace) {
	t.Helper()
	world, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { world.Close() })
	wan, err := netns.NewBridge(netns.BridgeConfig{Name: "wan", Host: world, Internal: true, HostAccess: true, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: wan}}}).Connect(context.Background(), host, "host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return "eth0", world
}
