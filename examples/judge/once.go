package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
)

// Verdict is what judge prints about one program.
type Verdict struct {
	Verdict  string                       `json:"verdict"`
	ExitCode int                          `json:"exit_code"`
	Output   string                       `json:"output"`
	Wall     time.Duration                `json:"wall_ns"`
	CPU      cgroups.Value[time.Duration] `json:"cpu_ns"`
	Memory   cgroups.Value[uint64]        `json:"peak_memory_bytes"`
	NotHeld  []string                     `json:"not_held,omitempty"`
}

// onceLimits are the same for every program.
var onceLimits = caisson.Options(
	caisson.WithMemory(64<<20),
	caisson.WithPids(32),
	caisson.WithOutputLimit(64<<10),
	caisson.WithCapabilities(), // none at all
	caisson.WithReadOnlyRoot(true),
)

// once runs a program once. An error is the judge's fault or the machine's; the program's faults are verdicts.
func once(ctx context.Context, program []byte, in, want string, more ...caisson.Option) (*Verdict, error) {
	var out bytes.Buffer
	c, err := caisson.New(
		caisson.WithFile("/solution", program, 0o755),
		caisson.WithCommand("/solution"),
		caisson.WithStdin(strings.NewReader(in)),
		caisson.WithStdout(&out),
		caisson.WithContext(ctx),
		onceLimits, caisson.Options(more...),
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
