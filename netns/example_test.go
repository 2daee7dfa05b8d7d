package netns_test

import (
	"context"
	"fmt"
	"log"

	"github.com/caisson-go/caisson/netns"
)

// Two namespaces on a network, without any container.
func Example() {
	ctx := context.Background()
	web, err := netns.NewBridge(netns.BridgeConfig{Name: "web"})
	if err != nil {
		log.Fatal(err)
	}
	server, err := netns.New()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: web, Ports: []netns.Port{{Container: 80, Host: 8080}}}}}
	c, err := n.Connect(ctx, server, "server")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Detach(ctx) }()
	l, err := server.Listen(ctx, "tcp", ":80") // reached on port 8080 of the host
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	fmt.Println(c.Status()[0].Addresses)
}
