package netns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// A published port of a program that was killed is one at which nobody listens, before anybody has cleared up.
func TestPortOfKilledProgram(t *testing.T) {
	nothingLeft(t)
	cmd := testutil.Role("publish")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(pipe).ReadString('\n')
	words := strings.Fields(line)
	if len(words) != 3 {
		t.Fatalf("%q, %v", line, err)
	}
	var all []netip.AddrPort
	for _, w := range words[1:] {
		all = append(all, netip.MustParseAddrPort(w))
	}
	for _, a := range all {
		says(t, "while the program lives", hostDial, "tcp", a.Addr(), a.Port(), "")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	gone := func() bool { _, err := net.InterfaceByName(words[0]); return err != nil }
	if !testutil.Eventually(testTime/2, gone) { // the kernel takes the namespace away on its own time; until then it answers
		t.Fatal("the device of the program's namespace is still there")
	}
	for _, a := range all {
		if got, err := ask(t, hostDial, "tcp", a.Addr(), a.Port()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%v after it was killed: %q, %v", a, got, err)
		}
	}
	if recoverAll(t) == 0 {
		t.Error("nothing was left to undo: the program was not killed")
	}
}

// rolePublish publishes a port of a namespace until it is killed, and tells where.
func rolePublish() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	b, err := NewBridge(BridgeConfig{Name: "publish"})
	fail(err)
	ns, err := New()
	fail(err)
	c, err := (&Networks{Endpoints: []Endpoint{{Network: b, Ports: []Port{{Container: 80}}}}}).Connect(context.Background(), ns, "")
	fail(err)
	l, err := ns.Listen(context.Background(), "tcp", ":80")
	fail(err)
	fmt.Print(c.Status()[0].Device, " ")
	for _, g := range c.states[0].Gateways {
		fmt.Print(netip.AddrPortFrom(g, c.Status()[0].Ports[0].Host), " ")
	}
	fmt.Println()
	for {
		x, err := l.Accept()
		fail(err)
		fmt.Fprint(x, "here")
		x.Close()
	}
}

// Many endpoints are few messages, whose answers are all read: the connection keeps in step.
func TestManyEndpointsInStep(t *testing.T) {
	nothingLeft(t)
	var r *rules
	ns := newNS(t)
	err := ns.Do(func() (err error) {
		r, err = openRules("caisson-many")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	n := &netState{Name: "web", Bridge: "cs-web"}
	n.Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}
	var eps []*epState
	for i := range 600 {
		a := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 16)
		eps = append(eps, &epState{ID: fmt.Sprint(i), Network: "web", Shared: true, Addresses: []netip.Prefix{a}, Ports: []Port{{Host: uint16(10000 + i), Container: 80}}})
	}
	if err := ns.Do(func() error { return r.build([]*netState{n}, eps) }); err != nil { // there, because it opens another connection on older kernels
		t.Fatal(err)
	}
	elements, err := r.conn.GetSetElements(r.sets["port4"])
	if err != nil || len(elements) != len(eps) {
		t.Errorf("%d ports, %v", len(elements), err)
	}
	missing := newRules(r.conn, "caisson-missing")
	if err := errors.Join(missing.endpoint(eps[0], r.conn.SetAddElements), r.flush()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a table that is not there: %v", err)
	}
}

// Answers that were left are not taken for those of the next change.
func TestAnswersLeft(t *testing.T) {
	nothingLeft(t)
	var o *ownedTable
	err := newNS(t).Do(func() (err error) {
		o, err = openOwned(ownedKey{table: "caisson-left"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	e := &epState{ID: "a", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}, Ports: []Port{{Host: 8080, Container: 80}}}
	raw, err := o.sock.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10) }), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 { // more than can be answered, and the table is not there
		if err := o.all.endpoint(e, o.all.conn.SetAddElements); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.all.flush(); !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("more answers than there is room for: %v", err)
	}
	if err := o.settle(); err != nil {
		t.Fatal(err)
	}
	if err := o.make(); err != nil {
		t.Fatal(err)
	}
	if ok, err := o.rules.exists(); !ok || err != nil {
		t.Errorf("its table: %v, %v", ok, err)
	}
}

// More ports than a socket of netlink sends by default are published, by the table of this program and by the table of all, and taken back. Who may not send
// more than by default is told so, and nothing is left of it.
func TestManyPorts(t *testing.T) {
	const first = 20000
	count := uint16(2500)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	} else if limit.Cur < 4*2500 { // each port has two
		count = uint16(limit.Cur / 4)
	}
	if count < 2100 {
		t.Skipf("%d open files are allowed: too few for more ports than go into 208 KiB", limit.Cur)
	}
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	n := &Networks{DNS: DNS{Disabled: true}, NoFiles: true, Endpoints: []Endpoint{{Network: web, Ports: []Port{{Container: 1, Host: first, Count: count}}}}}
	for _, recorded := range []bool{false, true} {
		ns := newNS(t)
		prepared, err := n.Prepare(testContext(t), Request{ID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		c := prepared.(*Connection)
		if recorded {
			_, _, _ = c.Record()
		}
		if err := c.Attach(testContext(t), Target{Netns: ns.File()}); err != nil {
			detach(t, c)
			if !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), "wmem_max") || sendsAll(t) {
				t.Fatalf("recorded %v: %v", recorded, err)
			}
			continue
		}
		for _, port := range []uint16{1, count / 2, count} {
			echo(t, ns, port)
			for _, g := range c.states[0].Gateways {
				if _, err := ask(t, hostDial, "tcp", g, first+port-1); err != nil {
					t.Errorf("recorded %v: port %d of %v: %v", recorded, port, g, err)
				}
			}
		}
		detach(t, c)
	}
}

// sendsAll says whether this program's sockets may send more than the host's limit.
func sendsAll(t *testing.T) bool {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	return unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, longest) == nil
}

// A table of thousands of ports is made afresh wholly, or stays as it was.
func TestManyPortsAtOnce(t *testing.T) {
	nothingLeft(t)
	n := &netState{Name: "web", Bridge: "cs-web", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	e := &epState{ID: "a", Network: "web", Shared: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16"), netip.MustParsePrefix("fd00::1/64")}}
	for i := range 5000 {
		e.Ports = append(e.Ports, Port{Host: uint16(10000 + i), Container: uint16(1 + i)})
	}
	if !sendsAll(t) {
		e.Ports = e.Ports[:1500]
	}
	other := &epState{ID: "b", Network: "web", Shared: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/16"), netip.MustParsePrefix("fd00::2/64")},
		Ports: e.Ports[len(e.Ports)-1:]} // which the first has
	var r, reader *rules
	ns := newNS(t)
	err := ns.Do(func() (err error) {
		if r, err = openRules("caisson-many"); err == nil {
			reader, err = openRules("caisson-many")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	defer reader.close()
	whole := func(when string) {
		t.Helper()
		for _, name := range []string{"port4", "port6"} {
			if l, err := reader.conn.GetSetElements(reader.sets[name]); err != nil || len(l) != len(e.Ports) {
				t.Errorf("%s: %d elements of %s, %v", when, len(l), name, err)
			}
		}
	}
	if err := ns.Do(func() error { return r.build([]*netState{n}, []*epState{e}) }); err != nil {
		t.Fatal(err)
	}
	whole("made")
	if err := ns.Do(func() error { return r.build([]*netState{n}, []*epState{e, other}) }); err == nil {
		t.Error("a port was given twice")
	}
	whole("not made afresh")
}

// Where the kernel has no room for chains of one more program (1024 at a hook, nf_hook_entries_grow in net/netfilter/core.c), ports stand in the table of all.
func TestNoRoomForOwned(t *testing.T) {
	nothingLeft(t)
	out, host, _ := world(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, first := connect(t, "first", Endpoint{Network: web}) // makes the table of all
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "full", Family: nftables.TableFamilyINet}
	conn.AddTable(table)
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.DelTable(table); _ = conn.Flush() })
	made := 0
	fill := func(n int) error {
		for range n {
			conn.AddChain(&nftables.Chain{Name: fmt.Sprint("c", made), Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
			made++
		}
		return conn.Flush()
	}
	for err == nil && made < 2000 { // in parts: a socket holds so many answers
		err = fill(50)
	}
	if !errors.Is(err, unix.E2BIG) {
		t.Fatalf("%d chains: %v", made, err)
	}
	for err = nil; err == nil; { // the last ones, for which there is a place
		err = fill(1)
	}
	if !errors.Is(err, unix.E2BIG) {
		t.Fatalf("%d chains: %v", made, err)
	}
	ns, c := connect(t, "second", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080}}})
	echo(t, ns, 80)
	if !c.eps[0].Shared {
		t.Error("its ports do not stand in the table of all")
	}
	for _, a := range host {
		says(t, "published", out.Dial, "tcp", a, 8080, "")
	}
	detach(t, c)
	for _, a := range host {
		silent(t, "withdrawn", out.Dial, a, 8080)
	}
	detach(t, first)
}

// The socket of the table that goes with it never has the number of the process, which sockets that are being closed may have had.
func TestOwnedTableNumber(t *testing.T) {
	nothingLeft(t)
	for range 3 {
		closing, err := openRules("caisson-closing")
		if err != nil {
			t.Fatal(err)
		}
		closing.close() // the number is free
		o, err := openOwned(ownedKey{table: "caisson-number"})
		if err != nil {
			t.Fatal(err)
		}
		n, err := o.number()
		if err != nil || n == 0 || n == uint32(os.Getpid()) {
			t.Errorf("number %d of process %d; %v", n, os.Getpid(), err)
		}
		if err := o.make(); err != nil {
			t.Error(err)
		}
		if there, err := o.rules.exists(); err != nil || !there {
			t.Errorf("%v, %v", there, err)
		}
		o.close()
	}
}
