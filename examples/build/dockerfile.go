package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// maxDockerfile bounds what is read as a Dockerfile.
const maxDockerfile = 4 << 20

// dockerfile is what was parsed: stages of instructions, and the ARGs before the first FROM.
type dockerfile struct {
	name   string
	lines  []string
	escape rune
	args   []instructions.ArgCommand
	stages []instructions.Stage
}

// parseDockerfile reads the syntax with buildkit's parser, so that it is the one that people know.
func parseDockerfile(name string, data []byte) (*dockerfile, error) {
	d := &dockerfile{name: name, lines: strings.Split(string(data), "\n")}
	if len(data) > maxDockerfile {
		return nil, &fault{d: d, err: fmt.Errorf("%d bytes; a Dockerfile has at most %d", len(data), maxDockerfile)}
	}
	ast, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, d.fault(nil, err)
	}
	d.escape = ast.EscapeToken
	if d.stages, d.args, err = instructions.Parse(ast.AST, nil); err != nil {
		return nil, d.fault(nil, err)
	}
	if len(d.stages) == 0 {
		return nil, &fault{d: d, err: errors.New("it has no FROM")}
	}
	return d, nil
}

// parseTrigger reads an instruction that ONBUILD of a base image left for this build.
func parseTrigger(text string) (instructions.Command, error) {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("ONBUILD %s: %w", text, err)
	}
	if len(ast.AST.Children) != 1 {
		return nil, fmt.Errorf("ONBUILD %q is not one instruction", text)
	}
	c, err := instructions.ParseCommand(ast.AST.Children[0])
	if err != nil {
		return nil, fmt.Errorf("ONBUILD %s: %w", text, err)
	}
	return c, nil
}

// stageNumber finds the stage that name means among the first n: a name, in any case, or a number.
func (d *dockerfile) stageNumber(name string, n int) (int, bool) {
	for i := n - 1; i >= 0; i-- { // of equal names the last one counts
		if d.stages[i].Name != "" && strings.EqualFold(d.stages[i].Name, name) {
			return i, true
		}
	}
	i := 0
	for _, c := range name {
		if c < '0' || c > '9' || i > len(d.stages) {
			return 0, false
		}
		i = i*10 + int(c-'0')
	}
	return i, name != "" && i < n
}

// fault is an error with its place in the Dockerfile.
type fault struct {
	d     *dockerfile
	where []parser.Range
	err   error
}

// fault says where err happened, if that is not said yet.
func (d *dockerfile) fault(where []parser.Range, err error) error {
	var f *fault
	if err == nil || errors.As(err, &f) {
		return err
	}
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 {
		where = at.Locations[0]
	}
	return &fault{d: d, where: where, err: err}
}

func (f *fault) Unwrap() error { return f.err }

// Error shows file, line, the instruction, and what was wrong.
func (f *fault) Error() string {
	if len(f.where) == 0 || f.where[0].Start.Line < 1 || f.where[0].Start.Line > len(f.d.lines) {
		return fmt.Sprintf("%s: %v", f.d.name, f.err)
	}
	first, last := f.where[0].Start.Line, min(max(f.where[len(f.where)-1].End.Line, f.where[0].Start.Line), len(f.d.lines))
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %v\n", f.d.name, first, f.err)
	for i := max(first-1, 1); i <= min(last+1, len(f.d.lines)); i++ {
		mark := " "
		if i >= first && i <= last {
			mark = ">"
		}
		fmt.Fprintf(&b, "%s %4d | %s\n", mark, i, strings.TrimRight(f.d.lines[i-1], "\r"))
	}
	return strings.TrimSuffix(b.String(), "\n")
}
