// Command judge runs a program that nobody trusts, on an input, and says how it fared: accepted, wrong answer, out of
// memory, out of time, too much output, or crashed. It is the core of a programming contest's or a course's judge.
//
//	go run ./examples/judge -in 3 -want 6 ./examples/judge/double.sh
//
// The program is put into the container as a file; it sees nothing of the host but the public programs, has no
// network, is nobody, and leaves nothing behind. Needs Linux 5.14. Limits of memory and processes need a cgroup
// that may be written; without one, -best-effort goes on and the verdict lists what was not held.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
)

// Verdict is what judge prints.
type Verdict struct {
	Verdict  string                       `json:"verdict"`
	ExitCode int                          `json:"exit_code"`
	Output   string                       `json:"output"`
	Wall     time.Duration                `json:"wall_ns"`
	CPU      cgroups.Value[time.Duration] `json:"cpu_ns"`
	Memory   cgroups.Value[uint64]        `json:"peak_memory_bytes"`
	NotHeld  []string                     `json:"not_held,omitempty"`
}

func main() {
	in := flag.String("in", "", "`TEXT` for the program's standard input")
	want := flag.String("want", "", "the right answer (`TEXT`)")
	cpu := flag.Duration("cpu", time.Second, "CPU time that the program may use")
	wall := flag.Duration("wall", 10*time.Second, "time that it may take in all")
	bestEffort := flag.Bool("best-effort", false, "go on where limits cannot be applied")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("judge: give one program or script")
	}
	program, err := os.ReadFile(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	v, err := judge(context.Background(), program, *in, *want,
		caisson.WithCPUTime(*cpu), caisson.WithTimeout(*wall), caisson.WithBestEffort(*bestEffort))
	if err != nil {
		log.Fatal(err)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		log.Fatal(err)
	}
}

// limits are the same for every program.
var limits = caisson.Options(
	caisson.WithMemory(64<<20),
	caisson.WithPids(32),
	caisson.WithOutputLimit(64<<10),
	caisson.WithCapabilities(), // none at all
	caisson.WithReadOnlyRoot(true),
)

// judge runs the program once. An error is the judge's fault or the machine's; the program's faults are verdicts.
func judge(ctx context.Context, program []byte, in, want string, more ...caisson.Option) (*Verdict, error) {
	var out bytes.Buffer
	c, err := caisson.New(
		caisson.WithFile("/solution", program, 0o755),
		caisson.WithCommand("/solution"),
		caisson.WithStdin(strings.NewReader(in)),
		caisson.WithStdout(&out),
		caisson.WithContext(ctx),
		limits, caisson.Options(more...),
	)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p, err := c.Start(ctx)
	if err != nil {
		return nil, err
	}
	r, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	v := &Verdict{verdict(r, out.String(), want), r.ExitCode, out.String(), r.Wall, r.CPU, r.PeakMemory, nil}
	for _, m := range c.Isolation().Missing() {
		v.NotHeld = append(v.NotHeld, m.String())
	}
	return v, nil
}

func verdict(r *caisson.Result, out, want string) string {
	switch {
	case r.Reason == caisson.ReasonSignaled, r.Reason == caisson.ReasonExited && r.ExitCode != 0:
		return fmt.Sprintf("crashed (%v)", r)
	case r.Reason != caisson.ReasonExited:
		return r.Reason.String()
	case strings.TrimSpace(out) != strings.TrimSpace(want):
		return "wrong answer"
	}
	return "accepted"
}
