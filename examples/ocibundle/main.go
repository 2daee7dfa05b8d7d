// Command ocibundle runs the bundle of an OCI runtime: a directory with a config.json and a root filesystem, such as
// "runc spec", umoci and buildah make.
//
//	go run ./examples/ocibundle /path/to/bundle
//
// It shows how the runtime specification maps to options: process (options.go), mounts (mounts.go), namespaces and
// limits (linux.go). What a bundle asks for and this program does not know is refused by name (refuse.go), never
// dropped. Needs Linux 5.14; whether an ordinary user may run a bundle depends on the bundle.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
)

// maxConfig bounds what is read: a config.json has some kilobytes.
const maxConfig = 4 << 20

func main() {
	log.SetFlags(0)
	explain := flag.Bool("explain", false, "print what a start does, and do not start")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("ocibundle: give the directory of one bundle")
	}
	status, err := run(context.Background(), flag.Arg(0), *explain)
	if err != nil {
		log.Print(err)
	}
	os.Exit(status)
}

func run(ctx context.Context, bundle string, explain bool) (int, error) {
	spec, err := load(bundle)
	if err != nil {
		return 125, err
	}
	opts, err := options(bundle, spec)
	if err != nil {
		return 125, err
	}
	c, err := caisson.New(append(opts, caisson.WithStdio())...)
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

// load reads config.json. Fields that the specification does not have are an error.
func load(bundle string) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var spec specs.Spec
	dec := json.NewDecoder(io.LimitReader(f, maxConfig))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&spec); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return &spec, nil
}
