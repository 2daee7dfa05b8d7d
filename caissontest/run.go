package caissontest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/caisson-go/caisson"
)

// background is the context of what happens outside a test or at its end.
func background() context.Context { return context.Background() }

// Run runs a container to its end and returns what it wrote to its standard output (at most a MiB, more ends it) and
// its result. Whatever the command ended with, the test goes on; it fails at once if the container could not be
// started. When the test ends first, by its deadline for example, the container does too.
func Run(t testing.TB, opts ...caisson.Option) (string, *caisson.Result) {
	t.Helper()
	var out bytes.Buffer
	c, err := caisson.New(append([]caisson.Option{caisson.WithOutputLimit(1 << 20), caisson.WithStdout(&out)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := c.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.Wait(t.Context())
	if err != nil {
		var exit *caisson.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return out.String(), res
}

// Start starts a container, fails the test if that is impossible, and closes the container when the test ends.
func Start(t testing.TB, opts ...caisson.Option) *caisson.Container {
	t.Helper()
	c, err := caisson.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}
