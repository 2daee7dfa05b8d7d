package netns

import (
	"bufio"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// resolvConf is what matters of resolv.conf(5).
type resolvConf struct {
	servers []netip.Addr
	search  []string
	options []string
}

// maxResolvConf bounds what is read of the file.
const maxResolvConf = 64 << 10

// parseResolvConf reads resolv.conf(5):
//
//	nameserver 192.0.2.53
//	nameserver fe80::1%eth0
//	search example.org example.net
//	domain example.org
//	options ndots:1 trust-ad
//
// Lines that are not understood are left out, as resolvers do; the last of search and domain counts.
func parseResolvConf(r io.Reader) resolvConf {
	var c resolvConf
	s := bufio.NewScanner(io.LimitReader(r, maxResolvConf))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				c.servers = append(c.servers, a)
			}
		case "domain":
			c.search = f[1:2]
		case "search":
			c.search = f[1:]
		case "options":
			c.options = append(c.options, f[1:]...)
		}
	}
	c.search = slices.DeleteFunc(slices.Clone(c.search), func(d string) bool { return d != "." && !validHost(strings.TrimSuffix(d, ".")) })
	return c
}

// String writes the file.
func (c resolvConf) String() string {
	var b strings.Builder
	for _, a := range c.servers {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	if len(c.search) > 0 {
		b.WriteString("search " + strings.Join(c.search, " ") + "\n")
	}
	if len(c.options) > 0 {
		b.WriteString("options " + strings.Join(c.options, " ") + "\n")
	}
	return b.String()
}
