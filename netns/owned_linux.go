package netns

import (
	"errors"
	"os"
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

// ownedTable is such a table of this program's, and the connection by which this program changes the table of all too: both in one transaction.
// It is open from the first endpoint that this program attaches until no network is left, see [closeOwned]: to close it with the last endpoint
// would hold up the next one, see [withRules].
type ownedTable struct {
	rules *rules
	all   *rules // by the same connection
	guard *rules // has the program's number while rules is open, see [openOwned]; may be nil
	sock  syscall.Conn
	own   func() error
	made  bool            // the table is there
	eps   map[string]bool // that are attached
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

// usesRules says that this program has rules there.
func usesRules(k ownedKey) bool {
	owning.mu.Lock()
	defer owning.mu.Unlock()
	return owning.tables[k] != nil
}

// withRules calls f with this program's connection there, or one that is made for it. The kernel does not close one before all has been freed
// that anybody deleted last, some ten milliseconds later, and makes no device meanwhile: so none is opened and closed without need.
func withRules(k ownedKey, f func(*nftables.Conn) error) error {
	owning.mu.Lock()
	defer owning.mu.Unlock()
	if t := owning.tables[k]; t != nil {
		if err := t.settle(); err != nil {
			return err
		}
		return f(t.rules.conn)
	}
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return err
	}
	defer func() { go c.CloseLasting() }()
	return f(c)
}

// addOwned publishes the ports of the connection's endpoints, and adds its elements to the table of all.
func (c *Connection) addOwned(s *store) error {
	owning.mu.Lock()
	defer owning.mu.Unlock()
	t, err := ownedLocked(c.owned())
	if err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	publish := func() (err error) {
		for _, e := range c.eps {
			if !t.made && len(e.Ports) > 0 {
				if err := t.make(); err != nil {
					return err
				}
			}
			t.eps[e.ID] = true
			err = errors.Join(err, t.rules.endpoint(e, t.rules.conn.SetAddElements))
		}
		return err
	}
	if err := publish(); err != nil {
		t.giveUp(c)
		return err
	}
	if err := c.elements(t.all); err == nil {
		if err = t.all.flush(); err == nil {
			return nil
		}
	}
	// The table of all is not there, or not whole. It is made by a connection of its own: there may be many answers.
	if err := errors.Join(t.settle(), publish(), t.rules.flush()); err != nil {
		if errors.Is(err, unix.EMSGSIZE) { // nothing was sent, and to take it back would be as long
			t.giveUp(c)
		}
		return err
	}
	r, err := openRules(c.tableName())
	if err != nil {
		return err
	}
	defer r.leave()
	return rebuild(r, s)
}

// settle reads the answers that are left of a change that failed, or was too long for all of them: the next change would take them for its own.
// The kernel has given every answer before a message is sent.
func (t *ownedTable) settle() error {
	raw, err := t.sock.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		buf := make([]byte, 32<<10)
		for {
			_, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if err != nil && err != unix.EINTR && err != unix.ENOBUFS { // the last tells that answers were lost
				return
			}
		}
	})
	if err == unix.EAGAIN {
		err = nil
	}
	return errors.Join(cerr, os.NewSyscallError("recvfrom", err))
}

// giveUp forgets the endpoints of a connection that cannot be published here, and closes what nobody else uses.
func (t *ownedTable) giveUp(c *Connection) {
	for _, e := range c.eps {
		delete(t.eps, e.ID)
	}
	if len(t.eps) == 0 {
		delete(owning.tables, c.owned())
		go t.close()
	}
}

func ownedLocked(k ownedKey) (*ownedTable, error) {
	if t := owning.tables[k]; t != nil {
		return t, nil
	}
	t, err := openOwned(k)
	if err != nil {
		return nil, err
	}
	if owning.tables == nil {
		owning.tables = map[ownedKey]*ownedTable{}
	}
	owning.tables[k] = t
	return t, nil
}

// withdrawOwned takes the ports of an endpoint back. What another program published went with it, or goes when that ends.
func withdrawOwned(k ownedKey, e *epState) error {
	owning.mu.Lock()
	defer owning.mu.Unlock()
	t := owning.tables[k]
	if t == nil || !t.eps[e.ID] {
		return nil
	}
	if err := t.settle(); err != nil {
		return err
	}
	if t.made {
		if err := t.rules.endpoint(e, t.rules.conn.SetDeleteElements); err != nil {
			return err
		}
	}
	err := ignoreMissing(t.rules.flush()) // a connection that failed midway
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
		t.close()
		delete(owning.tables, k)
	}
}

// openOwned opens the connection. Its table is made when it is needed.
//
// The kernel takes the owner for gone when any socket that had its number has been closed (nft_rcv_nl_event). The first socket of netlink that a program
// opens in a namespace has the number of the process, and the next one as soon as that is being closed, but not over. So that number is not taken:
// others are random.
func openOwned(k ownedKey) (*ownedTable, error) {
	t, err := dialOwned(k)
	if err != nil {
		return nil, err
	}
	n, err := t.number()
	if err == nil && n == uint32(os.Getpid()) {
		guard := t.rules
		if t, err = dialOwned(k); err != nil {
			guard.leave()
			return nil, err
		}
		t.guard = guard
	}
	if err != nil {
		go t.close()
		return nil, err
	}
	return t, nil
}

func dialOwned(k ownedKey) (*ownedTable, error) {
	name := k.table + "-" + newID()
	t := &ownedTable{eps: map[string]bool{}}
	var err error
	t.rules, err = openRules(name, withSocket(nftables.WithSockOptions, func(c syscall.Conn) {
		t.sock, t.own = c, func() error { return ownTableBy(c, name) }
	}))
	if err != nil {
		return nil, err
	}
	t.all = newRules(t.rules.conn, k.table)
	return t, nil
}

// number is that of the socket (nl_pid of netlink(7)).
func (t *ownedTable) number() (n uint32, err error) {
	raw, err := t.sock.SyscallConn()
	if err != nil {
		return 0, err
	}
	var sa unix.Sockaddr
	cerr := raw.Control(func(fd uintptr) { sa, err = unix.Getsockname(int(fd)) })
	if err = errors.Join(cerr, os.NewSyscallError("getsockname", err)); err != nil {
		return 0, err
	}
	return sa.(*unix.SockaddrNetlink).Pid, nil
}

// close closes the connection. The kernel removes the table.
func (t *ownedTable) close() {
	t.rules.close()
	if t.guard != nil {
		t.guard.leave()
	}
}

// make makes the table, which belongs to the socket by which it is made, and goes when that is closed.
func (t *ownedTable) make() error {
	if err := t.own(); err != nil && !errors.Is(err, unix.EEXIST) { // there: its chains could not be made
		return err
	}
	if err := t.rules.buildOwned(); err != nil {
		return err
	}
	t.made = true
	return nil
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
	return r.flush()
}
