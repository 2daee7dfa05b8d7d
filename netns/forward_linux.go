package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Rules at the ingress of devices stand in a table of their own, "netdev caisson", in which each device that is limited has a
// chain of its name with one rule, as nft shows it: fwd to "ci...".

func forwardTable(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyNetdev}
}

// addForward has all that comes in by a device forwarded to the one with the index.
func addForward(table, device string, to int) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := c.AddTable(forwardTable(table))
	c.AddChain(&nftables.Chain{Name: device, Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
		Priority: nftables.ChainPriorityFilter, Device: device})
	if err := c.Flush(); err != nil {
		return err
	}
	return addForwardRule(table, device, to)
}

// removeForward takes the chain of a device away, and the table if it was the last.
func removeForward(table, device string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := forwardTable(table)
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	others := false
	for _, ch := range chains {
		switch {
		case ch.Table.Name != t.Name:
		case ch.Name == device:
			c.DelChain(&nftables.Chain{Name: device, Table: t})
		default:
			others = true
		}
	}
	if err := ignoreMissing(c.Flush()); err != nil || others {
		return err
	}
	return removeTable(c, t)
}

// removeTable removes a table that may not be there.
func removeTable(c *nftables.Conn, t *nftables.Table) error {
	l, err := c.ListTablesOfFamily(t.Family)
	for _, x := range l {
		if x.Name == t.Name {
			c.DelTable(t)
			return ignoreMissing(c.Flush())
		}
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// addForwardRule sends what the nftables package has no type for, a rule of two expressions (linux/netfilter/nf_tables.h):
// register 1 gets the index, and fwd takes it from there.
func addForwardRule(table, chain string, to int) error {
	rule := nfnlRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE, unix.NFPROTO_NETDEV, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK)
	rule.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)))
	rule.AddData(nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)))
	list := nl.NewRtAttr(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, nil)
	data := expression(list, "immediate")
	data.AddRtAttr(unix.NFTA_IMMEDIATE_DREG, binaryutil.BigEndian.PutUint32(unix.NFT_REG_1))
	data.AddRtAttr(unix.NFTA_IMMEDIATE_DATA|unix.NLA_F_NESTED, nil).AddRtAttr(unix.NFTA_DATA_VALUE, native(uint32(to)))
	expression(list, "fwd").AddRtAttr(unix.NFTA_FWD_SREG_DEV, binaryutil.BigEndian.PutUint32(unix.NFT_REG_1))
	rule.AddData(list)
	return sendBatch(rule)
}

func expression(list *nl.RtAttr, name string) *nl.RtAttr {
	e := list.AddRtAttr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, nil)
	e.AddRtAttr(unix.NFTA_EXPR_NAME, nl.ZeroTerminated(name))
	return e.AddRtAttr(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, nil)
}

// nfnlRequest is a message of nfnetlink: a header of its own comes after netlink's.
func nfnlRequest(kind int, family byte, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, flags)
	resource := uint16(0)
	if kind == unix.NFNL_MSG_BATCH_BEGIN || kind == unix.NFNL_MSG_BATCH_END {
		resource = unix.NFNL_SUBSYS_NFTABLES
	}
	r.AddData(nfHeader{family, unix.NFNETLINK_V0, byte(resource >> 8), byte(resource)})
	return r
}

// nfHeader is struct nfgenmsg.
type nfHeader [4]byte

func (h nfHeader) Len() int          { return len(h) }
func (h nfHeader) Serialize() []byte { return h[:] }

// sendBatch sends messages as a transaction. The answer to each has been read when it returns.
func sendBatch(requests ...*nl.NetlinkRequest) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	return sendBatchBy(s, requests...)
}

// sendBatchBy does so by a socket that is there already.
func sendBatchBy(s int, requests ...*nl.NetlinkRequest) error {
	out := raw(nfnlRequest(unix.NFNL_MSG_BATCH_BEGIN, unix.AF_UNSPEC, 0))
	for _, r := range requests {
		out = append(out, raw(r)...)
	}
	out = append(out, raw(nfnlRequest(unix.NFNL_MSG_BATCH_END, unix.AF_UNSPEC, 0))...)
	if err := unix.Sendto(s, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	in := make([]byte, 16<<10)
	for range requests {
		n, _, err := unix.Recvfrom(s, in, 0)
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(in[4:]) != unix.NLMSG_ERROR {
			return fmt.Errorf("nftables: an answer of %d bytes that is no acknowledgement", n)
		}
		if code := int32(binary.NativeEndian.Uint32(in[unix.SizeofNlMsghdr:])); code != 0 {
			return unix.Errno(-code)
		}
	}
	return nil
}

// raw is a message, padded so that another may follow.
func raw(r *nl.NetlinkRequest) []byte {
	b := r.Serialize()
	return append(b, make([]byte, -len(b)&3)...)
}
