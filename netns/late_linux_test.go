package netns

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// A container that is connected to a further network while it runs finds its neighbours there by name, as long as it is.
func TestLateNames(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	out, _, outside := world(t)
	dns := DNS{Servers: []netip.AddrPort{fakeUpstream(t, out, outside[0])}}
	web, other := newBridge(t, BridgeConfig{Name: "web"}), newBridge(t, BridgeConfig{Name: "other"})
	first, _ := prepared(t, &Networks{Endpoints: []Endpoint{{Network: web}}, DNS: dns}, Request{ID: "first"})
	second, cs := prepared(t, &Networks{Endpoints: []Endpoint{{Network: other, Aliases: []string{"db"}}}, DNS: dns}, Request{ID: "second"})
	ctx := testContext(t)
	unknown := func(when string) {
		t.Helper()
		for _, name := range []string{"second", "second.other", "db"} {
			if l, err := resolver(first, "udp").LookupHost(ctx, name+"."); err == nil {
				t.Errorf("%s: %s is %v", when, name, l)
			}
		}
	}
	unknown("before")
	late, err := (&Networks{Endpoints: []Endpoint{{Network: other, Interface: "late"}}}).Connect(ctx, first, "late")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detach(t, late) })
	again, err := (&Networks{Endpoints: []Endpoint{{Network: other, Interface: "again"}}}).Connect(ctx, first, "again")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detach(t, again) })
	known := func(when string) {
		t.Helper()
		for _, network := range []string{"udp", "tcp"} {
			r := resolver(first, network)
			for _, name := range []string{"second", "second.other", "db"} {
				if l, err := r.LookupHost(ctx, name+"."); len(l) != len(addresses(cs)) || err != nil {
					t.Errorf("%s: %s, %s: %v %v", when, network, name, l, err)
				}
			}
			for _, a := range addresses(cs) {
				if l, err := r.LookupAddr(ctx, a.String()); len(l) != 1 || l[0] != "second." {
					t.Errorf("%s: %s, %v: %v %v", when, network, a, l, err)
				}
			}
		}
	}
	known("connected twice")
	if l, err := resolver(second, "udp").LookupHost(ctx, "late."); len(l) != 2 {
		t.Error("the other way:", l, err)
	}
	if l, err := resolver(second, "udp").LookupHost(ctx, "first."); err == nil {
		t.Error("a neighbour on another network is known:", l)
	}
	detach(t, late)
	known("connected once")
	detach(t, again)
	unknown("after")
	if l, err := resolver(first, "udp").LookupHost(ctx, "first."); len(l) != 2 {
		t.Error("its own network:", l, err)
	}
}

// roleLate is a program that connects a namespace of another's until its input ends.
func roleLate() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	ns, err := Open(os.Getenv("CAISSON_TEST_NETNS"))
	fail(err)
	var eps []Endpoint
	for _, name := range []string{"late", "later"} {
		b, err := NewBridge(BridgeConfig{Name: name})
		fail(err)
		eps = append(eps, Endpoint{Network: b, Interface: name, NoDefaultRoute: true})
	}
	c, err := (&Networks{Endpoints: eps}).Connect(context.Background(), ns, "added")
	fail(err)
	fmt.Println("made")
	_, _ = os.Stdin.Read(make([]byte, 1))
	fail(c.Detach(context.Background()))
	fmt.Println("done")
}

// The server of names learns also of networks to which another program connects its container: while that lives, and durably, until it is undone.
func TestLateElsewhere(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	out, _, outside := world(t)
	dns := DNS{Servers: []netip.AddrPort{fakeUpstream(t, out, outside[0])}}
	first, _ := prepared(t, &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}, DNS: dns}, Request{ID: "first"})
	late := newBridge(t, BridgeConfig{Name: "late"})
	_, cs := prepared(t, &Networks{Endpoints: []Endpoint{{Network: late}}, DNS: dns}, Request{ID: "second"})
	_, cl := prepared(t, &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "later"})}}, DNS: dns}, Request{ID: "third"})
	ctx, here := testContext(t), fmt.Sprintf("CAISSON_TEST_NETNS=/proc/%d/fd/%d", os.Getpid(), first.File().Fd())
	names := map[string]*Connection{"second": cs, "second.late": cs, "third.later": cl}
	known := func(when string, names map[string]*Connection) {
		t.Helper()
		r := resolver(first, "udp")
		for name, c := range names {
			if l, err := r.LookupHost(ctx, name+"."); len(l) != 2 || err != nil {
				t.Errorf("%s: %s: %v %v", when, name, l, err)
			}
			for _, a := range addresses(c) {
				if l, err := r.LookupAddr(ctx, a.String()); len(l) != 1 || l[0] != c.Status()[0].Names[0]+"." {
					t.Errorf("%s: %v: %v %v", when, a, l, err)
				}
			}
		}
	}
	unknown := func(when string) {
		t.Helper()
		for name := range names {
			var l []string
			if !testutil.Eventually(testTime/2, func() (gone bool) { // who has just gone may be found for a moment
				var err error
				l, err = resolver(first, "udp").LookupHost(ctx, name+".")
				return err != nil
			}) {
				t.Errorf("%s: %s is %v", when, name, l)
			}
		}
		if left, _ := filepath.Glob("/run/caisson/netns/*/late/*"); len(left) > 0 {
			t.Errorf("%s: left: %q", when, left)
		}
	}
	unknown("before")
	cmd := testutil.Role("late", here)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(said)
	if l, err := r.ReadString('\n'); l != "made\n" {
		in.Close()
		t.Fatal(l, err, cmd.Wait())
	}
	known("connected", names)
	in.Close()
	if l, err := io.ReadAll(r); string(l) != "done\n" {
		t.Errorf("%s %v", l, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	unknown("disconnected")
	data, err := testutil.Role("durable", here).Output()
	if err != nil || bytes.HasPrefix(data, []byte("error")) {
		t.Fatalf("%v %s", err, data)
	}
	known("durably", map[string]*Connection{"second": cs, "second.late": cs})
	if err := Owner().Undo(ctx, recordVersion, bytes.TrimSpace(data)); err != nil {
		t.Error(err)
	}
	unknown("undone")
}

// roleDurable is a program that connects a namespace of another's for longer than it lives, and says what undoes that.
func roleDurable() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	ns, err := Open(os.Getenv("CAISSON_TEST_NETNS"))
	fail(err)
	late, err := NewBridge(BridgeConfig{Name: "late"})
	fail(err)
	n := &Networks{Endpoints: []Endpoint{{Network: late, Interface: "late", NoDefaultRoute: true}}, NoFiles: true}
	a, err := n.Prepare(context.Background(), Request{ID: "late"})
	fail(err)
	c := a.(*Connection)
	_, _, data := c.Record()
	fail(c.Attach(context.Background(), Target{Netns: ns.File()}))
	fmt.Println(string(data))
	// It ends without more.
}

// What is connected durably to something that runs stays after the program, and through a recovery, until its record is undone.
func TestLateDurable(t *testing.T) {
	nothingLeft(t)
	ns, c := connect(t, "first", Endpoint{Network: newBridge(t, BridgeConfig{Name: "web"})})
	out, err := testutil.Role("durable", fmt.Sprintf("CAISSON_TEST_NETNS=/proc/%d/fd/%d", os.Getpid(), ns.File().Fd())).Output()
	data := strings.TrimSpace(string(out))
	if err != nil || strings.HasPrefix(data, "error") {
		t.Fatalf("%v %s", err, data)
	}
	undone := false
	undo := func() {
		if undone {
			return
		}
		undone = true
		if err := Owner().Undo(testContext(t), recordVersion, []byte(data)); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(undo)
	if n := recoverAll(t); n != 0 {
		t.Errorf("%d connections were undone by the recovery", n)
	}
	echo(t, ns, 80)
	late, err := NewBridge(BridgeConfig{Name: "late"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := late.Endpoints(testContext(t))
	if err != nil || len(l) != 1 {
		t.Fatal(l, err)
	}
	for _, p := range l[0].Addresses {
		says(t, "the host", hostDial, "tcp", p.Addr(), 80, "")
	}
	undo()
	for _, a := range addresses(c) {
		says(t, "the first network", hostDial, "tcp", a, 80, "")
	}
}
