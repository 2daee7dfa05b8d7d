// Command oneshot runs one program in a container with all defaults and ends: caisson as a command-line tool would
// use it, for comparison with others.
//
//	oneshot [-nocgroup] ROOTFS PROGRAM [ARG...]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	args := os.Args[1:]
	var opts []caisson.Option
	if len(args) > 0 && args[0] == "-nocgroup" {
		opts, args = append(opts, caisson.WithoutCgroup()), args[1:]
	}
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: oneshot [-nocgroup] ROOTFS PROGRAM [ARG...]")
		os.Exit(2)
	}
	opts = append(opts, caisson.WithRootfs(rootfs.Dir(args[0])), caisson.WithCommand(args[1], args[2:]...), caisson.WithStdio())
	os.Exit(run(opts))
}

func run(opts []caisson.Option) int {
	c, err := caisson.New(opts...)
	if err == nil {
		err = errors.Join(c.Run(context.Background()), c.Close())
	}
	var exit *caisson.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.Result.ExitCode
	case err != nil:
		fmt.Fprintln(os.Stderr, "oneshot:", err)
		return 125
	}
	return 0
}
