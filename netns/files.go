package netns

import (
	"net/netip"
	"os"
	"slices"
	"strings"
)

// serverAddr is where the server of names listens inside: the address that users of Docker know.
var serverAddr = netip.MustParseAddr("127.0.0.11")

// Files are /etc/hosts, /etc/hostname and /etc/resolv.conf for the container. As data they are put into it by whoever starts
// it, beneath its root.
func (c *Connection) Files() []File {
	if c.nets.NoFiles || c.bare {
		return nil
	}
	files := []File{{Path: "/etc/hosts", Data: []byte(c.hostsFile()), Mode: 0o644}, {Path: "/etc/resolv.conf", Data: []byte(c.resolvFile()), Mode: 0o644}}
	if c.req.Hostname != "" {
		files = append(files, File{Path: "/etc/hostname", Data: []byte(c.req.Hostname + "\n"), Mode: 0o644})
	}
	return files
}

func (c *Connection) hostsFile() string {
	var b strings.Builder
	line := func(a netip.Addr, names ...string) {
		if len(names) > 0 {
			b.WriteString(a.String() + "\t" + strings.Join(names, " ") + "\n")
		}
	}
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, e := range c.eps {
		for _, p := range e.Addresses {
			line(p.Addr(), e.Names...)
		}
	}
	for _, h := range c.nets.Hosts {
		line(h.Addr, h.Names...)
	}
	if c.durable { // no server of names answers for the others
		for _, e := range c.neighbours() {
			for _, p := range e.Addresses {
				line(p.Addr(), e.Names...)
			}
		}
	}
	return b.String()
}

// ownServer says whether a server of this program's answers.
func (c *Connection) ownServer() bool { return !c.bare && !c.durable && !c.nets.DNS.Disabled }

func (c *Connection) resolvFile() string {
	host := hostResolvConf("/etc/resolv.conf")
	out := resolvConf{search: c.nets.DNS.Search, options: c.nets.DNS.Options}
	if len(out.search) == 0 && !c.internal() {
		out.search = host.search
	}
	switch {
	case c.ownServer():
		out.servers = []netip.Addr{serverAddr}
	case len(c.nets.DNS.Servers) > 0:
		for _, s := range c.nets.DNS.Servers {
			out.servers = append(out.servers, s.Addr())
		}
	case !c.internal():
		out.servers = reachable(host.servers)
		if len(out.servers) == 0 { // systemd-resolved's list of what its stub asks
			out.servers = reachable(hostResolvConf("/run/systemd/resolve/resolv.conf").servers)
		}
	}
	return out.String()
}

// reachable leaves out resolvers that a container cannot reach: those on addresses of the host's own loopback or link.
func reachable(l []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(l), func(a netip.Addr) bool { return a.IsLoopback() || a.Zone() != "" || a.IsLinkLocalUnicast() })
}

func hostResolvConf(path string) resolvConf {
	f, err := os.Open(path)
	if err != nil {
		return resolvConf{}
	}
	defer f.Close()
	return parseResolvConf(f)
}

// internal says that no network leads to the world.
func (c *Connection) internal() bool {
	return !slices.ContainsFunc(c.states, func(n *netState) bool { return !n.Internal })
}
