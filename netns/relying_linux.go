package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// relying counts what other programs have on the host that needs its forwarding, as far as that can be seen: rules that give forwarded packets an address of
// the host's, by their table, and bridges with an address. Keys begin with the switch of the family. It runs in the host's namespace.
func relying(k ownedKey) (out map[string]int, err error) {
	look := func(conn *nftables.Conn) error {
		out = map[string]int{}
		if err := masquerading(conn, k.table, out); err != nil {
			return &Error{Op: "list rules", Err: privileged(err)}
		}
		if err := bridging(out); err != nil {
			return &Error{Op: "list addresses", Err: privileged(err)}
		}
		return nil
	}
	for range 5 { // what others change meanwhile breaks a list off
		if err = withRules(k, look); err == nil {
			break
		}
	}
	masqueradingLegacy(out)
	return out, err
}

// switchesOf are those of the families whose packets a table sees.
var switchesOf = map[nftables.TableFamily][]string{nftables.TableFamilyIPv4: {switch4}, nftables.TableFamilyIPv6: {switch6}, nftables.TableFamilyINet: {switch4, switch6}}

// masquerading counts rules of tables that have a chain for addresses of what leaves the host; own is not looked at.
func masquerading(conn *nftables.Conn, own string, out map[string]int) error {
	chains, err := conn.ListChains()
	if err != nil {
		return err
	}
	leaves := func(ch *nftables.Chain) bool {
		return ch.Type == nftables.ChainTypeNAT && ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookPostrouting
	}
	seen := 0
	for _, ch := range chains {
		same := func(o *nftables.Chain) bool {
			return o.Table.Name == ch.Table.Name && o.Table.Family == ch.Table.Family && leaves(o)
		}
		if ch.Table.Name == own || switchesOf[ch.Table.Family] == nil || !slices.ContainsFunc(chains, same) {
			continue
		}
		if seen++; seen > maxLooked {
			break
		}
		l, err := rulesOf(conn, ch)
		if err != nil {
			return err
		}
		for _, r := range l {
			if slices.ContainsFunc(r.Exprs, givesAddress) {
				for _, s := range switchesOf[ch.Table.Family] {
					out[fmt.Sprint(s, " table ", families[ch.Table.Family], " ", ch.Table.Name)]++
				}
			}
		}
	}
	return nil
}

// givesAddress is true for what gives a packet another source, also in the form in which iptables-nft writes it.
func givesAddress(e expr.Any) bool {
	switch e := e.(type) {
	case *expr.Masq:
		return true
	case *expr.NAT:
		return e.Type == expr.NATTypeSourceNAT
	case *expr.Target:
		return givesAddressLegacy(e.Name)
	}
	return false
}

func givesAddressLegacy(target string) bool { return target == "MASQUERADE" || target == "SNAT" }

// masqueradingLegacy counts the same of iptables-legacy. A table that cannot be read has none.
func masqueradingLegacy(out map[string]int) {
	if unsafe.Sizeof(uintptr(0)) != 8 { // see findLegacy
		return
	}
	for i, f := range legacyFamilies {
		names, err := readFile("/proc/thread-self/net/" + f.proc)
		if err != nil || !slices.Contains(strings.Fields(string(names)), "nat") {
			continue
		}
		t, err := f.read("nat")
		if err != nil {
			continue
		}
		t.each(func(e legacyEntry) bool {
			if givesAddressLegacy(e.kind()) {
				out[[]string{switch4, switch6}[i]+" "+f.tool]++
			}
			return true
		})
	}
}

// bridging counts bridges with an address that are not ours.
func bridging(out map[string]int) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	for s, family := range map[string]int{switch4: netlink.FAMILY_V4, switch6: netlink.FAMILY_V6} {
		l, err := h.AddrList(nil, family)
		if err == unix.EAFNOSUPPORT {
			continue
		}
		if err != nil {
			return err
		}
		seen := map[int]bool{}
		for _, a := range l {
			if ip, _ := netip.AddrFromSlice(a.IP); seen[a.LinkIndex] || ip.Unmap().IsLinkLocalUnicast() {
				continue
			}
			seen[a.LinkIndex] = true
			link, err := h.LinkByIndex(a.LinkIndex)
			if err != nil || link.Type() != "bridge" || strings.HasPrefix(link.Attrs().Alias, aliasOf("")) {
				continue // or just gone
			}
			out[s+" bridge "+link.Attrs().Name]++
		}
	}
	return nil
}

// reliedOn says that something relies on a switch that did not before.
func reliedOn(path string, before, now map[string]int) bool {
	for what, n := range now {
		if strings.HasPrefix(what, path+" ") && n > before[what] {
			return true
		}
	}
	return false
}
