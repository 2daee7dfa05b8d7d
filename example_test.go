package caisson_test

import (
	"context"
	"fmt"
	"log"
	"os"

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
