package netns

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// BenchmarkConnect connects a namespace with a published port and disconnects it, on a network that others keep alive. The time of
// one operation is until the first connection by the host's address and IPv4, and by IPv6, has been answered; what taking it
// away costs is told apart.
func BenchmarkConnect(b *testing.B) {
	ctx := context.Background()
	web := newBridge(b, BridgeConfig{Name: "web"})
	_, keep := connect(b, "keep", Endpoint{Network: web})
	n := &Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Container: 80, Host: 8080}}}}}
	var away time.Duration
	for b.Loop() {
		b.StopTimer()
		ns := newNS(b)
		echo(b, ns, 80)
		b.StartTimer()
		c, err := n.Connect(ctx, ns, "bench")
		if err != nil {
			b.Fatal(err)
		}
		for _, gateway := range keep.states[0].Gateways {
			x, err := dial(ctx, "tcp", netip.AddrPortFrom(gateway, 8080).String())
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.ReadAll(x)
			x.Close()
		}
		b.StopTimer()
		began := time.Now()
		if err := c.Detach(ctx); err != nil {
			b.Fatal(err)
		}
		away += time.Since(began)
		ns.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(away.Microseconds())/1000/float64(b.N), "detach-ms/op")
}

// BenchmarkMany connects one namespace after the other to a network and keeps them: with -benchtime 1000x the last of them is
// compared to the first.
func BenchmarkMany(b *testing.B) {
	ctx := context.Background()
	web := newBridge(b, BridgeConfig{Name: "web"})
	connect(b, "keep", Endpoint{Network: web})
	n := &Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Container: 80}}}}}
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		ns := newNS(b)
		b.StartTimer()
		began := time.Now()
		c, err := n.Connect(ctx, ns, fmt.Sprint("c", len(took)))
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
		b.StopTimer()
		b.Cleanup(func() { detach(b, c) })
		b.StartTimer()
	}
	if tenth := len(took) / 10; tenth > 0 {
		b.ReportMetric(mean(took[:tenth]), "first-tenth-ms")
		b.ReportMetric(mean(took[len(took)-tenth:]), "last-tenth-ms")
	}
}

func mean(l []time.Duration) float64 {
	var sum time.Duration
	for _, d := range l {
		sum += d
	}
	return float64(sum.Microseconds()) / 1000 / float64(len(l))
}

// BenchmarkNamesRate asks for the address of a neighbour, with 64 queries under way at a time: with -test.cpu 1 the server, the client and the kernel share one
// core.
func BenchmarkNamesRate(b *testing.B) {
	ns, _ := prepared(b, &Networks{Endpoints: []Endpoint{{Network: newBridge(b, BridgeConfig{Name: "web"})}}}, Request{ID: "web1"})
	c, err := ns.Dial(context.Background(), "udp", "127.0.0.11:53")
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg, buf := question(b, "web1.", dnsmessage.TypeA), make([]byte, plainSize)
	const window = 64
	b.ResetTimer()
	for sent, got := 0, 0; got < b.N; {
		for sent < b.N && sent-got < window {
			if _, err := c.Write(msg); err != nil {
				b.Fatal(err)
			}
			sent++
		}
		for sent-got > window/2 || sent == b.N && got < sent {
			_ = c.SetReadDeadline(time.Now().Add(testTime))
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
			got++
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}

// BenchmarkNames asks the server inside for the address of a neighbour, one query after the other.
func BenchmarkNames(b *testing.B) {
	ns, _ := prepared(b, &Networks{Endpoints: []Endpoint{{Network: newBridge(b, BridgeConfig{Name: "web"})}}}, Request{ID: "web1"})
	c, err := ns.Dial(context.Background(), "udp", "127.0.0.11:53")
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg, buf := question(b, "web1.", dnsmessage.TypeA), make([]byte, plainSize)
	for b.Loop() {
		if _, err := c.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
