package netns

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How an endpoint is limited, on its device of the host's side:
//
//	tbf, or netem with a tbf below it, at the root: what the container receives
//	a chain of nftables at the device's ingress that forwards all to an ifb device, which has a tbf at its root: what it sends
//
// The ifb device hands packets back to where they were taken from.

// ifbOf is the name of the ifb device of an endpoint.
func ifbOf(id string) string { return "ci" + id }

// applyLimits limits an endpoint whose device exists and carries nothing yet.
func applyLimits(h *netlink.Handle, table string, e *epState, index int) error {
	l := &e.Limits
	if err := shapeDownload(h, l, index); err != nil {
		return err
	}
	if l.Upload.BitsPerSecond == 0 {
		return nil
	}
	ifb := &netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: ifbOf(e.ID), Flags: net.FlagUp, TxQLen: -1}}
	if err := h.LinkAdd(ifb); err != nil {
		return unsupportedBy(err, "ifb devices (CONFIG_IFB)")
	}
	link, err := h.LinkByName(ifb.Name)
	if err != nil {
		return err
	}
	if err := h.QdiscAdd(tbf(l.Upload, link.Attrs().Index, netlink.HANDLE_ROOT)); err != nil {
		return unsupportedBy(err, "the queueing discipline tbf (CONFIG_NET_SCH_TBF)")
	}
	if err := addForward(table, e.Device, link.Attrs().Index); err != nil {
		return unsupportedBy(err, "forwarding at the ingress by nftables (CONFIG_NFT_FWD_NETDEV)")
	}
	return nil
}

func shapeDownload(h *netlink.Handle, l *Limits, index int) error {
	parent := uint32(netlink.HANDLE_ROOT)
	if l.netem() {
		q := netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: parent},
			netlink.NetemQdiscAttrs{Latency: uint32(l.Delay.Microseconds()), Jitter: uint32(l.Jitter.Microseconds()), Loss: float32(100 * l.Loss), Limit: netemQueue})
		if err := h.QdiscAdd(q); err != nil {
			return unsupportedBy(err, "the queueing discipline netem (CONFIG_NET_SCH_NETEM)")
		}
		parent = netlink.MakeHandle(1, 1)
	}
	if l.Download.BitsPerSecond == 0 {
		return nil
	}
	return unsupportedBy(h.QdiscAdd(tbf(l.Download, index, parent)), "the queueing discipline tbf (CONFIG_NET_SCH_TBF)")
}

// netemQueue is how many packets are under way at most.
const netemQueue = 10000

func tbf(r Rate, index int, parent uint32) netlink.Qdisc {
	return &netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(2, 0), Parent: parent},
		Rate: r.bytes(), Limit: r.queue(), Buffer: netlink.Xmittime(r.bytes(), r.burst())}
}

// unsupportedBy names what a kernel lacks if that is what err means.
func unsupportedBy(err error, what string) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w: the kernel lacks %s: %w", ErrUnsupported, what, err)
	}
	return err
}

// limitable keeps what was found out about the kernel.
var limitable struct {
	netem, upload sync.Once
	err           [2]error
}

// checkLimits finds out, in a namespace made for it, whether the kernel can limit in that way.
func checkLimits(l *Limits) error {
	fail := func(err error) error {
		if err == nil {
			return nil
		}
		return &Error{Op: "limit an endpoint", Err: privileged(err), Remedy: remedy(err, "CAP_SYS_ADMIN", "run as root")}
	}
	if l.netem() {
		limitable.netem.Do(func() { limitable.err[0] = tryLimits(&Limits{Delay: 1e6}) })
		if err := limitable.err[0]; err != nil {
			return fail(err)
		}
	}
	if l.Download.BitsPerSecond > 0 || l.Upload.BitsPerSecond > 0 {
		limitable.upload.Do(func() {
			limitable.err[1] = tryLimits(&Limits{Upload: Rate{BitsPerSecond: 1e6}, Download: Rate{BitsPerSecond: 1e6}})
		})
		return fail(limitable.err[1])
	}
	return nil
}

func tryLimits(l *Limits) error {
	ns, err := New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error {
		h, err := routeHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return applyLimits(h, "caisson", &epState{ID: "0", Device: "lo", Limits: *l}, lo.Attrs().Index)
	})
}
