// Command hello is the smallest container: a shell that says who and where it is.
//
//	go run ./examples/hello
//
// It needs Linux 5.14 and no privilege.
package main

import (
	"context"
	"log"

	"github.com/caisson-go/caisson"
)

func main() {
	c, err := caisson.New(caisson.WithCommand("sh", "-c", "echo hello from process $$ on $(hostname)"), caisson.WithStdio())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Run(context.Background()); err != nil {
		c.Close()
		log.Fatal(err)
	}
}
