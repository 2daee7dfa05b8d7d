// Command build makes container images from Dockerfiles, much as docker build does, but without a daemon, without root, and in one
// process: every RUN is a container of the library.
//
//	go run ./examples/build
//	go run ./examples/build -t app:1 .
//
// The syntax is read by buildkit's parser. The rest is here, a file for each idea: what a Dockerfile is (dockerfile.go, scope.go), where
// files come from (tree.go, context.go, layers_linux.go), how they become a layer (copy.go, layer.go), how a command becomes one (run.go,
// mounts.go, network.go), what is not done twice (cache.go), and what comes out (state.go, output.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/caisson-go/caisson/image"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "-greet" { // what the demonstration runs in a container
		if err := greet(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	o, err := parseOptions(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run builds what the command line asks for, and prints the digest of the image.
func run(ctx context.Context, o *options, stdout, stderr io.Writer) error {
	start := time.Now()
	store, err := openStore(o)
	if err != nil {
		return err
	}
	defer store.Close()
	p := &progress{w: stderr, quiet: o.quiet}
	if o.demo {
		dir, err := demonstrate(o)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	if o.prune {
		n, err := (&builder{store: store}).prune(ctx)
		if err != nil {
			return err
		}
		p.line("%d steps forgotten", n)
		if o.context == "" {
			return nil
		}
	}
	b, err := newBuilder(o, store, p)
	if err != nil {
		return err
	}
	defer b.Close()
	st, err := b.build(ctx)
	if err != nil {
		return err
	}
	img, err := st.deliver(ctx)
	if err != nil {
		return err
	}
	p.line("%d steps, %d of them cached, %.3fs", p.steps, p.hits, time.Since(start).Seconds())
	return report(o, img, stdout)
}

func openStore(o *options) (*image.Store, error) {
	dir := o.store
	if dir == "" {
		var err error
		if dir, err = image.DefaultDir(); err != nil {
			return nil, err
		}
	}
	return image.Open(dir, image.Options{})
}

// report prints the digest, which is the name that nobody can change.
func report(o *options, img image.Image, stdout io.Writer) error {
	id := img.Descriptor.Digest.String()
	if o.idFile != "" {
		if err := os.WriteFile(o.idFile, []byte(id), 0o644); err != nil {
			return err
		}
	}
	for _, t := range o.outputs {
		if t.dest == "-" {
			return nil // standard output is taken
		}
	}
	_, err := fmt.Fprintln(stdout, id)
	return err
}
