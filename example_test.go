package caisson_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/caisson-go/caisson"
)

// The smallest program: the host's own echo, in a container.
func Example() {
	c, err := caisson.New(caisson.WithCommand("echo", "hello from a container"), caisson.WithStdout(os.Stdout))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: hello from a container
}

// What contains a container can be asked for, and what this machine could not give.
func ExampleContainer_Isolation() {
	c, err := caisson.New(caisson.WithCommand("true"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	pid, _ := c.Isolation().Get("pid namespace")
	fmt.Println(pid)
	// Output: pid namespace: own processes only
}

// Commands in containers that were made ready beforehand, each in one of its own.
func ExamplePool() {
	pool, err := caisson.NewPool(caisson.PoolConfig{Size: 2}, caisson.WithHostname("worker"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	for _, word := range []string{"first", "second"} {
		var out strings.Builder
		result, err := pool.Run(context.Background(), caisson.WithCommand("sh", "-c", "cat /word; uname -n"),
			caisson.WithFile("/word", []byte(word+"\n"), 0o644), caisson.WithStdout(&out))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(out.String(), result, "\n")
	}
	// Output:
	// first
	// worker
	// exit status 0
	// second
	// worker
	// exit status 0
}
