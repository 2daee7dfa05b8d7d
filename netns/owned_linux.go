package netns

import (
	"errors"
	"sync"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Ports of connections that end with this program are published by a table that ends with it as well: one that belongs to a socket of netlink
// (NFT_TABLE_F_OWNER, Linux 5.12), which the kernel removes when the socket is closed, by SIGKILL too. A client is refused then, as where nobody
// listens; a translation that stays would send it to an address that does not answer. The table has the maps port4, addr4, port6 and addr6 and the chains
// prerouting and output of [rules], and nothing else. Ports of containers that outlive the program stand in the table of all.

// ownedTable is such a table of this program's.
type ownedTable struct {
	rules *rules
	eps   map[string]bool // whose ports are in it
}

// owning are the tables of this program, by the host's namespace and the name of the table of all.
var owning struct {
	mu     sync.Mutex
	tables map[ownedKey]*ownedTable
}

type ownedKey struct {
	host  uint64
	table string
}

// publishOwned publishes the ports of endpoints.
func publishOwned(k ownedKey, eps []*epState) error {
	owning.mu.Lock()
	defer owning.mu.Unlock()
	t := owning.tables[k]
	if t == nil {
		r, err := openOwned(k.table + "-" + newID())
		if err != nil {
			return err
		}
		if t = (&ownedTable{r, map[string]bool{}}); owning.tables == nil {
			owning.tables = map[ownedKey]*ownedTable{}
		}
		owning.tables[k] = t
	}
	var faults []error
	for _, e := range eps {
		t.eps[e.ID] = true
		faults = append(faults, t.rules.endpoint(e, t.rules.conn.SetAddElements))
	}
	return errors.Join(append(faults, t.rules.conn.Flush())...)
}

// withdrawOwned takes the ports of an endpoint back. What another program published went with it, or goes when that ends.
func withdrawOwned(k ownedKey, e *epState) error {
	owning.mu.Lock()
	defer owning.mu.Unlock()
	t := owning.tables[k]
	if t == nil || !t.eps[e.ID] {
		return nil
	}
	if err := t.rules.endpoint(e, t.rules.conn.SetDeleteElements); err != nil {
		return err
	}
	err := ignoreMissing(t.rules.conn.Flush()) // a connection that failed midway
	if err == nil {
		delete(t.eps, e.ID)
	}
	return err
}

// closeOwned removes this program's table, when no endpoint is in it.
func closeOwned(k ownedKey) {
	owning.mu.Lock()
	defer owning.mu.Unlock()
	if t := owning.tables[k]; t != nil && len(t.eps) == 0 {
		t.rules.close() // the kernel removes it
		delete(owning.tables, k)
	}
}

// openOwned makes a table that belongs to the socket by which it is made, and goes when that is closed.
func openOwned(name string) (*rules, error) {
	var made error
	r, err := openRules(name, withSocket(nftables.WithSockOptions, func(c syscall.Conn) {
		made = ownTableBy(c, name)
	}))
	if err != nil {
		return nil, err
	}
	if made == nil {
		made = r.buildOwned()
	}
	if made != nil {
		r.close()
		return nil, made
	}
	return r, nil
}

// withSocket is an option by which f gets the socket, whose type is one of another package's.
func withSocket[C syscall.Conn, S ~func(C) error](option func(...S) nftables.ConnOption, f func(syscall.Conn)) nftables.ConnOption {
	return option(func(c C) error { f(c); return nil })
}

// ownTableBy makes the table, with the flag that package nftables does not send.
func ownTableBy(c syscall.Conn, name string) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	table := nfnlRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, unix.NFPROTO_INET, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	table.AddData(nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(name)))
	table.AddData(nl.NewRtAttr(unix.NFTA_TABLE_FLAGS, []byte{0, 0, 0, tableOwner}))
	var serr error
	return errors.Join(raw.Control(func(fd uintptr) { serr = sendBatchBy(int(fd), table) }), serr)
}

// tableOwner is NFT_TABLE_F_OWNER (linux/netfilter/nf_tables.h).
const tableOwner = 2

// buildOwned adds the maps and chains.
func (r *rules) buildOwned() error {
	for _, name := range portMaps {
		if err := r.conn.AddSet(r.sets[name], nil); err != nil {
			return err
		}
	}
	r.publishing()
	return r.conn.Flush()
}
