package netns

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The table goes with the last network, also where others have taken the one of all away.
func TestReportsTableGoes(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, c := connect(t, "", Endpoint{Network: web})
	r, err := openRules(c.tableName())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	r.conn.DelTable(r.table)
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	detach(t, c)
}

func TestReportsStayAway(t *testing.T) {
	if err := tryGuard(); errors.Is(unsupportedBy(err, "bridges"), ErrUnsupported) {
		t.Skip("no nf_tables for bridges here:", err)
	}
	web := newBridge(t, BridgeConfig{Name: "web"})
	one, _ := connect(t, "", Endpoint{Network: web})
	two, c := connect(t, "", Endpoint{Network: web})
	name := c.Status()[0].Interface
	const etherType = unix.ETH_P_IPV6
	in, err := one.ListenFrames(name, etherType)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := two.ListenFrames(name, etherType)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	own := c.Status()[0].MAC
	const mark = "caisson: "
	send := func(to string, from net.HardwareAddr, what string) {
		t.Helper()
		const noNext, hops = 59, 1
		group, data := netip.MustParseAddr(to).As16(), []byte(mark+what)
		header := slices.Concat([]byte{6 << 4, 0, 0, 0, 0, byte(len(data)), noNext, hops}, netip.IPv6Unspecified().AsSlice(), group[:])
		frame := slices.Concat([]byte{0x33, 0x33}, group[12:], from, []byte{etherType >> 8, etherType & 0xff}, header, data)
		if _, err := out.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	send("ff02::16", own, "report")
	send("ff02::fb", own, "names")
	send("ff05::16", own, "of the same hardware address")
	send("ff02::16", net.HardwareAddr{0x0a, 1, 2, 3, 4, 5}, "foreign")
	want := []string{"names", "of the same hardware address", "foreign"}
	missing := slices.Clone(want) // frames that several processors carry may pass each other
	var got []string
	_ = in.SetReadDeadline(time.Now().Add(testTime))
	for buf := make([]byte, 2000); len(missing) > 0; {
		n, err := in.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		if _, what, ok := strings.Cut(string(buf[:n]), mark); ok { // the kernel sends some too
			got, missing = append(got, what), slices.DeleteFunc(missing, func(s string) bool { return s == what })
		}
	}
	if slices.Contains(got, "report") {
		t.Errorf("the other has got %q, want only %q", got, want)
	}
}
