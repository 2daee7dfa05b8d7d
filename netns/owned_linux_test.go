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
	if recoverAll(t, 0) == 0 {
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
