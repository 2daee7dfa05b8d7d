package netns

import (
	"errors"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// reportsTable is "bridge caisson-mld", as nft shows it:
//
//	chain prerouting { type filter hook prerouting priority -300;
//	  meta protocol ip6 ip6 daddr ff02::16 ether saddr & ff:ff:00:00:00:00 == 0a:c5:00:00:00:00 iifname "cs*" drop }
//
// When a device gets an IPv6 address the kernel reports which groups it listens to, four times in two seconds (RFC 3810, 5.2.14 and 6.1). On
// a bridge that does not snoop, as ours, nobody needs that, and each report would go to all others: on a network of a thousand that is most
// of what connecting one more costs the machine. Only what the kernel sends from an address of [macOf] by a device of ours is dropped, be it of
// this state directory or of another.
func (r *rules) reportsTable() *nftables.Table {
	return &nftables.Table{Name: r.table.Name + "-mld", Family: nftables.TableFamilyBridge}
}

// reportsTo is where they are sent, to all routers that know MLDv2.
var reportsTo = netip.MustParseAddr("ff02::16")

// quiet makes it afresh. A kernel without tables of that family (CONFIG_NF_TABLES_BRIDGE) lets reports go everywhere.
func (r *rules) quiet() error {
	conn, err := nftables.New() // not the lasting one: what the kernel answers, if it refuses, would stay there
	if err != nil {
		return err
	}
	t, at := r.reportsTable(), nftables.ChainPriority(-300) // NF_BR_PRI_NAT_DST_BRIDGED, before guards look
	conn.AddTable(t)                                        // so that it can be deleted whether it is there or not
	conn.DelTable(t)
	conn.AddTable(t)
	c := conn.AddChain(&nftables.Chain{Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: &at})
	equal := func(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }
	// Where they stand in a frame, after the destination, and in the header of IPv6 (RFC 8200, 3).
	const source, destination = 6, 24
	ours := macOf(netip.IPv4Unspecified())[:2]
	conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, equal(unix.ETH_P_IPV6>>8, unix.ETH_P_IPV6&0xff),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: destination, Len: net.IPv6len}, equal(reportsTo.AsSlice()...),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: source, Len: uint32(len(ours))}, equal(ours...),
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal('c', 's'),
		&expr.Verdict{Kind: expr.VerdictDrop}}})
	return whereKnown(conn.Flush())
}

// loud removes it.
func (r *rules) loud() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	return whereKnown(removeTable(conn, r.reportsTable()))
}

// whereKnown passes over what a kernel without the family says.
func whereKnown(err error) error {
	if errors.Is(unsupportedBy(err, "nf_tables for bridges"), ErrUnsupported) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}
