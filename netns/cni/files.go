package cni

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"

	"github.com/caisson-go/caisson/netns"
)

// Files are /etc/hosts, /etc/hostname and /etc/resolv.conf for the container.
func (a *Attachment) Files() []netns.File {
	o := &a.net.opts
	if o.NoFiles {
		return nil
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	var out []netns.File
	if a.hostname != "" {
		hosts.WriteString("127.0.1.1\t" + a.hostname + "\n")
		out = append(out, netns.File{Path: "/etc/hostname", Data: []byte(a.hostname + "\n"), Mode: 0o644})
	}
	for _, h := range o.Hosts {
		hosts.WriteString(h.Addr.String() + "\t" + strings.Join(h.Names, " ") + "\n")
	}
	return append(out, netns.File{Path: "/etc/hosts", Data: []byte(hosts.String()), Mode: 0o644},
		netns.File{Path: "/etc/resolv.conf", Data: []byte(a.net.resolvConf().resolvConf()), Mode: 0o644})
}

// Warnings tells that the container has nobody to ask for names: neither the options nor the list name a resolver, and the host's listen on loopback or
// link-local addresses. What a plugin's result says of names comes too late for the file.
func (a *Attachment) Warnings() []netns.Warning {
	if a.net.opts.NoFiles || len(a.net.resolvConf().Nameservers) > 0 {
		return nil
	}
	return []netns.Warning{{Name: "names of the world", Reason: "the host's resolvers listen on loopback or link-local addresses, which are others in the container: its /etc/resolv.conf has none",
		Remedy: "name some in DNS.Servers, or in the list's dns"}}
}

// Where the host says who resolves names for it: its own file, and systemd-resolved's list of what its stub asks; variables for tests.
var hostResolv = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// resolvConf is made of the options, or of what the list says, or of what the host has.
func (n *Network) resolvConf() DNS {
	d := DNS{Search: n.opts.DNS.Search, Options: n.opts.DNS.Options}
	for _, s := range n.opts.DNS.Servers {
		d.Nameservers = append(d.Nameservers, s.Addr().String())
	}
	for _, p := range n.list.Plugins {
		d.fill(p.DNS)
	}
	for _, f := range hostResolv {
		if len(d.Nameservers) > 0 {
			break
		}
		if b, err := readBounded(f, maxConfig); err == nil {
			d.fill(hostDNS(b))
		}
	}
	return d
}

// resolvConf writes the file.
func (d DNS) resolvConf() string {
	var b strings.Builder
	for _, s := range d.Nameservers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(d.Search) == 0 && d.Domain != "" {
		d.Search = []string{d.Domain}
	}
	if len(d.Search) > 0 {
		b.WriteString("search " + strings.Join(d.Search, " ") + "\n")
	}
	if len(d.Options) > 0 {
		b.WriteString("options " + strings.Join(d.Options, " ") + "\n")
	}
	return b.String()
}

// fill takes what is not said yet.
func (d *DNS) fill(from DNS) {
	clean := func(l []string) (out []string) {
		for _, s := range l {
			if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				out = append(out, s)
			}
		}
		return out
	}
	if len(d.Nameservers) == 0 {
		d.Nameservers = clean(from.Nameservers)
	}
	if len(d.Search) == 0 {
		if d.Search = clean(from.Search); len(d.Search) == 0 {
			d.Search = clean([]string{from.Domain})
		}
	}
	if len(d.Options) == 0 {
		d.Options = clean(from.Options)
	}
}

// hostDNS reads a resolv.conf, without resolvers that a container cannot reach.
func hostDNS(b []byte) (d DNS) {
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && !a.IsLoopback() && a.Zone() == "" && !a.IsLinkLocalUnicast() {
				d.Nameservers = append(d.Nameservers, a.String())
			}
		case "search", "domain":
			d.Search = f[1:]
		}
	}
	return d
}
