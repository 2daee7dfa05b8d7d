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
	return append(hostnameFile(c.req.Hostname), File{Path: "/etc/hosts", Data: []byte(c.hostsFile()), Mode: 0o644},
		File{Path: "/etc/resolv.conf", Data: []byte(c.resolv().String()), Mode: 0o644})
}

func (c *Connection) resolv() resolvConf {
	return resolvFor(c.nets.DNS, c.ownServer(), c.internal())
}

// unresolved is without a warning where no file is made, and from internal networks, which are to have no names.
func (c *Connection) unresolved() []Warning {
	if c.nets.NoFiles || c.bare || c.internal() {
		return nil
	}
	return unresolved(c.resolv())
}

func hostnameFile(name string) []File {
	if name == "" {
		return nil
	}
	return []File{{Path: "/etc/hostname", Data: []byte(name + "\n"), Mode: 0o644}}
}

const loopbackHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

func writeHost(b *strings.Builder, a netip.Addr, names []string) {
	if len(names) > 0 {
		b.WriteString(a.String() + "\t" + strings.Join(names, " ") + "\n")
	}
}

func writeHosts(b *strings.Builder, l []Host) {
	for _, h := range l {
		writeHost(b, h.Addr, h.Names)
	}
}

func (c *Connection) hostsFile() string {
	var b strings.Builder
	b.WriteString(loopbackHosts)
	for _, e := range c.eps {
		for _, p := range e.Addresses {
			writeHost(&b, p.Addr(), e.Names)
		}
	}
	writeHosts(&b, c.nets.Hosts)
	if c.unattended() { // no server of names answers for the others
		for _, e := range c.neighbours() {
			for _, p := range e.Addresses {
				writeHost(&b, p.Addr(), e.Names)
			}
		}
	}
	return b.String()
}

// unattended says that the connection outlives this program.
func (c *Connection) unattended() bool { return c.to != nil || c.durable && !c.req.Attended }

// ownServer says whether a server of this program's answers.
func (c *Connection) ownServer() bool { return !c.bare && !c.unattended() && !c.nets.DNS.Disabled }

// resolvFor is the resolv.conf for a container with a server of names of ours, or without; from internal networks no other can
// be reached.
func resolvFor(dns DNS, own, internal bool) resolvConf {
	host := hostResolvConf(hostResolv)
	out := resolvConf{search: dns.Search, options: dns.Options}
	if len(out.search) == 0 && !internal {
		out.search = host.search
	}
	switch {
	case own:
		out.servers = []netip.Addr{serverAddr}
	case len(dns.Servers) > 0:
		for _, s := range dns.Servers {
			out.servers = append(out.servers, s.Addr())
		}
	case !internal:
		out.servers = reachable(host.servers)
		if len(out.servers) == 0 { // systemd-resolved's list of what its stub asks
			out.servers = reachable(hostResolvConf(systemdResolv).servers)
		}
	}
	return out
}

// resolvers are the servers that the file means: without one, that of the machine itself (resolv.conf(5)).
func (c resolvConf) resolvers() []netip.Addr {
	if len(c.servers) == 0 {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return c.servers
}

// unresolved warns that a container which asks by itself has nobody to ask: all of the host's resolvers are for the host alone.
func unresolved(c resolvConf) []Warning {
	if len(c.servers) > 0 {
		return nil
	}
	return []Warning{{"names of the world", "the host's resolvers listen on loopback or link-local addresses, which are others in the container: its /etc/resolv.conf has none", "name some in DNS.Servers"}}
}

// reachable leaves out resolvers that a container cannot reach: those on addresses of the host's own loopback or link.
func reachable(l []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(l), func(a netip.Addr) bool { return a.IsLoopback() || a.Zone() != "" || a.IsLinkLocalUnicast() })
}

// Where the host says who resolves names for it; variables for tests.
var hostResolv, systemdResolv = "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"

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
