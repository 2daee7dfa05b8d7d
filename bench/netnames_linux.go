package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/netns"
)

const (
	rowNamesCPU  = "queries for a neighbour's name, a second of a processor (client included)"
	rowNamesRate = "queries for a neighbour's name, a second, 64 under way"
	rowNamesTime = "a query for a neighbour's name"
)

// asked is a server of names and who asks it.
type asked struct {
	name, query string
	from        *netns.Namespace
	server      string
	pid         int // of a process beside this one; 0: it is this one
	undo        []func() error
}

func (a *asked) close() {
	for i := len(a.undo) - 1; i >= 0; i-- {
		_ = a.undo[i]()
	}
}

// namesAsked measures the servers of names, in turns: ours, and podman's aardvark-dns.
func namesAsked(ctx context.Context, engines []*netEngine, f *figures) error {
	var all []*asked
	defer func() {
		for _, a := range all {
			a.close()
		}
	}()
	own, err := ownNameServer(ctx, engines[0])
	all = append(all, own)
	if err != nil {
		return err
	}
	for _, e := range engines {
		if e.name != "netavark" {
			continue
		}
		if program := helperProgram("AARDVARK_DNS", "aardvark-dns"); program != "" {
			a, err := podmanNames(ctx, e, program)
			all = append(all, a)
			if err != nil {
				return err
			}
		}
	}
	for range *netTurns {
		for _, a := range all {
			if err := a.ask(f); err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
		}
	}
	return nil
}

func ownNameServer(ctx context.Context, e *netEngine) (*asked, error) {
	a := &asked{name: e.name, query: "web1.", server: "127.0.0.11:53"}
	ns, err := netns.New()
	if err != nil {
		return a, err
	}
	a.from, a.undo = ns, append(a.undo, ns.Close)
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: e.lan.(*ownNet).lan}}}).Prepare(ctx, netns.Request{ID: "web1", Attended: true})
	if err != nil {
		return a, err
	}
	a.undo = append(a.undo, func() error { return c.Detach(ctx) })
	return a, c.Attach(ctx, netns.Target{Netns: ns.File()})
}

func podmanNames(ctx context.Context, e *netEngine, program string) (*asked, error) {
	a := &asked{name: e.name, server: net.JoinHostPort(lanHosts[0].String(), "53")}
	lan := *e.lan.(*netavarkNet)
	lan.aardvark = program
	ns, err := netns.New()
	if err != nil {
		return a, err
	}
	a.from, a.undo = ns, append(a.undo, ns.Close)
	e.made++
	a.query = fmt.Sprintf("c%d.", e.made)
	p, err := lan.attach(ctx, ns, e.made, false)
	if err != nil {
		return a, err
	}
	pidFile := filepath.Join(e.dir, "aardvark-dns", "aardvark.pid")
	text, err := os.ReadFile(pidFile)
	if err == nil {
		a.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	a.undo = append(a.undo, p.detach) // with the last container its server goes
	return a, err
}

// ask takes a sample of each row.
func (a *asked) ask(f *figures) error {
	c, err := a.from.Dial(context.Background(), "udp", a.server)
	if err != nil {
		return err
	}
	defer c.Close()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	name, err := dnsmessage.NewName(a.query)
	if err != nil {
		return err
	}
	if err := errors.Join(b.StartQuestions(), b.Question(dnsmessage.Question{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET})); err != nil {
		return err
	}
	msg, err := b.Finish()
	if err != nil {
		return err
	}
	if err := a.known(c, msg); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for range 500 {
		began := time.Now()
		if err := exchange(c, msg, buf); err != nil {
			return err
		}
		f.row(rowNamesTime, "µs", false).add(a.name, microseconds(time.Since(began)))
	}
	const n, window = 20000, 64
	spent, began := a.processor(), time.Now()
	for sent, got := 0, 0; got < n; {
		for sent < n && sent-got < window {
			if _, err := c.Write(msg); err != nil {
				return err
			}
			sent++
		}
		for sent-got > window/2 || sent == n && got < sent {
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			if _, err := c.Read(buf); err != nil {
				return err
			}
			got++
		}
	}
	f.row(rowNamesRate, "1/s", true).add(a.name, n/time.Since(began).Seconds())
	f.row(rowNamesCPU, "1/s", true).add(a.name, n/(a.processor()-spent).Seconds())
	return nil
}

// known waits until the server knows the name.
func (a *asked) known(c net.Conn, msg []byte) error {
	buf := make([]byte, 1500)
	var err error
	for range 50 {
		if err = exchange(c, msg, buf); err == nil {
			var p dnsmessage.Message
			if err = p.Unpack(buf); err == nil && len(p.Answers) > 0 {
				if r, ok := p.Answers[0].Body.(*dnsmessage.AResource); ok && netip.AddrFrom4(r.A).IsValid() {
					return nil
				}
			}
			err = errors.Join(err, fmt.Errorf("%s is not known", a.query))
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func exchange(c net.Conn, msg, buf []byte) error {
	if _, err := c.Write(msg); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, err := c.Read(buf)
	return err
}

// processor is the time that this program and the server have used.
func (a *asked) processor() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	d := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if a.pid != 0 {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.pid))
		if i := strings.LastIndexByte(string(text), ')'); i >= 0 {
			f := strings.Fields(string(text[i+1:]))
			if len(f) > 12 {
				user, _ := strconv.Atoi(f[11])
				sys, _ := strconv.Atoi(f[12])
				d += time.Duration(user+sys) * time.Second / 100 // USER_HZ
			}
		}
	}
	return d
}
