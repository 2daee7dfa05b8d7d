// Command ocibundle runs the bundle of an OCI runtime, a directory with a config.json and a root filesystem, such as
// "runc spec", umoci and buildah make; or it writes one, which runc, crun and the engines on top of them run.
//
//	go run ./examples/ocibundle /path/to/bundle
//	go run ./examples/ocibundle -write /tmp/bundle -rootfs /path/to/rootfs -- COMMAND ARGS…
//
// The bundle is the road from one host to engines for many: what was tried out in a program can be handed over as it
// is. What a bundle asks for and caisson cannot do is refused by the name of the field, never dropped, and so is what
// a bundle has no field for. Needs Linux 5.14; whether an ordinary user may run a bundle depends on the bundle.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	log.SetFlags(0)
	explain := flag.Bool("explain", false, "print what a start does, and do not start")
	write := flag.String("write", "", "write a bundle to this directory instead of running one")
	root := flag.String("rootfs", "", "with -write: the root filesystem, used as it is, read-only")
	flag.Parse()
	ctx := context.Background()
	switch {
	case *write != "" && *root != "" && flag.NArg() > 0:
		if err := writeBundle(ctx, *write, *root, flag.Args()); err != nil {
			log.Fatal(err)
		}
	case *write != "" || flag.NArg() != 1:
		log.Fatal("ocibundle: give the directory of one bundle, or -write, -rootfs and a command")
	default:
		status, err := run(ctx, flag.Arg(0), *explain)
		if err != nil {
			log.Print(err)
		}
		os.Exit(status)
	}
}

func writeBundle(ctx context.Context, dir, root string, command []string) error {
	c, err := caisson.New(caisson.WithRootfs(rootfs.Dir(root).ReadOnly()), caisson.WithCommand(command[0], command[1:]...))
	if err != nil {
		return err
	}
	defer c.Close()
	return c.WriteBundle(ctx, dir)
}

func run(ctx context.Context, bundle string, explain bool) (int, error) {
	config, err := caisson.FromBundle(bundle)
	if err != nil {
		return 125, err
	}
	c, err := caisson.New(config, caisson.WithStdio())
	if err != nil {
		return 125, err
	}
	defer c.Close()
	if explain {
		if err := c.Explain(ctx, os.Stdout); err != nil {
			return 125, err
		}
		return 0, nil
	}
	var failed *caisson.ExitError
	switch err := c.Run(ctx); {
	case errors.As(err, &failed):
		return failed.Result.ShellCode(), nil
	case err != nil:
		return 125, err
	}
	return 0, nil
}
