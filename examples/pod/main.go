// Command pod starts two containers that have a network, message queues, a host name and process numbers in common, and
// their files apart.
//
//	go run ./examples/pod
//
// It needs Linux 5.14 and no privilege.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
)

func main() {
	if err := lesson(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func lesson(ctx context.Context) error {
	// The first one makes the namespaces. It does nothing but collect processes that nobody else does, for which it has an
	// init. The user namespace lets the others join its process numbers on every kernel, as root too.
	first, err := caisson.New(caisson.WithID("first"), caisson.WithHostname("pod"), caisson.WithInit(true), caisson.WithCommand("sleep", "1000000"),
		caisson.WithNamespace(namespaces.User, namespaces.New()))
	if err != nil {
		return err
	}
	defer first.Close()
	if _, err := first.Start(ctx); err != nil {
		return err
	}

	// A server on its localhost; the listener was made inside, and is served from here.
	l, err := first.Listen(ctx, "tcp", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served on localhost") })}
	go server.Serve(l)
	defer server.Close()

	fmt.Println("1. the second joins them")
	second, err := caisson.New(caisson.WithID("second"), caisson.WithCommand("sleep", "2000000"),
		caisson.WithNamespacesOf(first, namespaces.Net, namespaces.IPC, namespaces.UTS, namespaces.PID))
	if err != nil {
		return err
	}
	defer second.Close()
	p, err := second.Start(ctx)
	if err != nil {
		return err
	}
	for _, m := range second.Isolation() {
		if strings.HasSuffix(m.Name, "namespace") {
			fmt.Println("  ", m)
		}
	}

	fmt.Println("2. one host name, one localhost")
	show(ctx, second, "hostname")
	conn, err := second.Dial(ctx, "tcp", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	fmt.Println("  ", get(conn))

	fmt.Println("3. the same message queues, and each other's processes")
	show(ctx, first, "touch /dev/mqueue/orders")
	show(ctx, second, "ls /dev/mqueue; cat /proc/1/comm; for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep ^sleep")

	fmt.Println("4. but not their files")
	show(ctx, first, "echo mine > /tmp/note")
	show(ctx, second, "cat /tmp/note 2>/dev/null || echo there is no note")

	fmt.Println("5. they end with the first, whose process numbers they have")
	if err := first.Close(); err != nil {
		return err
	}
	r, err := p.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Println("   the second:", r)
	if _, err := second.Start(ctx); !errors.Is(err, caisson.ErrClosed) && !errors.Is(err, caisson.ErrState) {
		return fmt.Errorf("a start with namespaces of a container that has ended: %w", err)
	}
	return nil
}

// get asks for a page over a connection.
func get(conn net.Conn) string {
	defer conn.Close()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	resp, err := client.Get("http://localhost/")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// show runs a shell command in a container and prints what it wrote.
func show(ctx context.Context, c *caisson.Container, script string) {
	var out bytes.Buffer
	p, err := c.Exec(ctx, caisson.WithCommand("sh", "-c", script), caisson.WithStdout(&out), caisson.WithStderr(&out))
	if err == nil {
		_, err = p.Wait(ctx)
	}
	for line := range strings.Lines(out.String()) {
		fmt.Printf("   %s: %s\n", c.ID(), strings.TrimSpace(line))
	}
	if err != nil {
		fmt.Println("  ", err)
	}
}
