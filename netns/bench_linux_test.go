package netns

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
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
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		ns := newNS(b)
		echo(b, ns, 80)
		b.StartTimer()
		start := time.Now()
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
		took = append(took, time.Since(start))
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
	slices.Sort(took) // what other programs do makes some of them longer, none shorter
	b.ReportMetric(mean(took[:1]), "fastest-ms")
	b.ReportMetric(mean(took[len(took)/10:][:1]), "p10-ms")
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

// BenchmarkLast connects a namespace to a network of 999 others and disconnects it, after the same on a network of one: what is told is the
// fastest and the tenth percentile of both, which other programs' work changes least, and how many times the former the latter is.
func BenchmarkLast(b *testing.B) {
	ctx := context.Background()
	sample := func(name string, others int) (took []time.Duration) {
		web := newBridge(b, BridgeConfig{Name: name})
		n := &Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Container: 80}}}}}
		for range others {
			connect(b, "", Endpoint{Network: web})
		}
		for range b.N {
			ns := newNS(b)
			began := time.Now()
			c, err := n.Connect(ctx, ns, "last")
			if err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
			detach(b, c)
			ns.Close()
		}
		slices.Sort(took)
		return took
	}
	first, last := sample("few", 1), sample("many", 999)
	for _, p := range []struct {
		name string
		at   int
	}{{"fastest", 0}, {"p10", b.N / 10}} {
		one, other := mean(first[p.at:][:1]), mean(last[p.at:][:1])
		b.ReportMetric(one, p.name+"-first-ms")
		b.ReportMetric(other, p.name+"-last-ms")
		b.ReportMetric(other/one, p.name+"-ratio")
	}
}
