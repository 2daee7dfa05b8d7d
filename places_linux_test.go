package caisson

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
)

// manyFiles are more extra files than this program has descriptors, since one is given many times: the places that they go
// to have the numbers of descriptors that the start itself uses.
func manyFiles(t *testing.T) ProcessOption {
	t.Helper()
	return WithExtraFiles(slices.Repeat([]*os.File{tempFile(t)}, 120)...)
}

// countFiles counts those of them that are in their places.
const countFiles = `i=3; n=0; while [ $i -lt 123 ]; do [ /proc/self/fd/$i -ef /proc/self/fd/3 ] && n=$((n+1)); i=$((i+1)); done; echo $n`

func TestManyExtraFiles(t *testing.T) {
	noLeaks(t)
	if got := output(t, sh(countFiles), manyFiles(t)); got != "120" {
		t.Errorf("%q", got)
	}
	steps := 0
	trace := WithTrace(&Trace{StepDone: func(StepInfo) { steps++ }})
	if got := output(t, sh(countFiles), manyFiles(t), trace); got != "120" || steps < 10 {
		t.Errorf("with a trace: %q, %d steps", got, steps)
	}
	if got := output(t, WithCommand("./sh", "-c", countFiles), manyFiles(t), WithDir("/bin"), WithHostname("h")); got != "120" {
		t.Errorf("in a directory: %q", got)
	}
}

// What fails after the files are in their places is told as ever.
func TestManyExtraFilesFailure(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/nowhere"), manyFiles(t))
	if err := c.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("%v", err)
	}
}

func TestManyExtraFilesOfExec(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, sh("sleep 1000"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	var out buffer
	p, err := c.Exec(context.Background(), WithCommand("/bin/sh", "-c", countFiles), manyFiles(t), WithStdout(&out))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); err != nil || out.String() != "120\n" {
		t.Errorf("%v, %q", err, out.String())
	}
}
