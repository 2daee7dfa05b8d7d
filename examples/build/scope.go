package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scope holds the variables that can be seen at one point of a Dockerfile: those of ENV, which go into the image, and those of
// ARG, which do not. An ENV hides an ARG of the same name.
type scope struct {
	env, args *vars
	escape    rune // what takes the meaning from a character: \ unless the Dockerfile says otherwise
}

// vars is a list of variables in the order in which they were first set.
type vars struct {
	names  []string
	values map[string]string
}

func newVars(list ...string) *vars {
	v := &vars{values: map[string]string{}}
	for _, kv := range list {
		k, value, _ := strings.Cut(kv, "=")
		v.set(k, value)
	}
	return v
}

func (v *vars) set(name, value string) {
	if _, ok := v.values[name]; !ok {
		v.names = append(v.names, name)
	}
	v.values[name] = value
}

func (v *vars) list() []string {
	out := make([]string, 0, len(v.names))
	for _, n := range v.names {
		out = append(out, n+"="+v.values[n])
	}
	return out
}

// Get and Keys are what the shell lexer asks.
func (s *scope) Get(name string) (string, bool) {
	if v, ok := s.env.values[name]; ok {
		return v, true
	}
	v, ok := s.args.values[name]
	return v, ok
}

func (s *scope) Keys() []string { return append(slices.Clone(s.args.names), s.env.names...) }

// word expands variables in one word, and takes quotes away.
func (s *scope) word(w string) (string, error) {
	out, _, err := shell.NewLex(s.escape).ProcessWord(w, s)
	return out, err
}

// words does so and splits what comes out at blanks.
func (s *scope) words(w string) ([]string, error) { return shell.NewLex(s.escape).ProcessWords(w, s) }

// text expands variables in the text of a heredoc, and leaves quotes alone.
func (s *scope) text(w string) (string, error) {
	lex := shell.NewLex('\\')
	lex.SkipProcessQuotes = true
	out, _, err := lex.ProcessWord(w, s)
	return out, err
}

// expand replaces the variables in an instruction, where its kind has that done.
func (s *scope) expand(c instructions.Command) error {
	if e, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		if err := e.Expand(s.word); err != nil {
			return err
		}
	}
	if e, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok {
		return e.ExpandRaw(s.text)
	}
	return nil
}

// run is the environment of a RUN. Variables of ENV win.
func (s *scope) run() []string {
	out := newVars(s.args.list()...)
	for _, n := range s.env.names {
		out.set(n, s.env.values[n])
	}
	return out.list()
}

// proxyArgs need no ARG, and count for nothing in the cache: who is behind a proxy today builds the same thing.
var proxyArgs = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"}

// proxies are those of proxyArgs that the command line sets.
func proxies(buildArgs map[string]string) []string {
	var out []string
	for _, n := range proxyArgs {
		if v, ok := buildArgs[n]; ok {
			out = append(out, n+"="+v)
		}
	}
	return out
}

// platformArgs are the variables that every Dockerfile may ask for.
func platformArgs(build, target ocispec.Platform, stage string) map[string]string {
	return map[string]string{
		"BUILDPLATFORM": platformName(build), "BUILDOS": build.OS, "BUILDARCH": build.Architecture, "BUILDVARIANT": build.Variant,
		"TARGETPLATFORM": platformName(target), "TARGETOS": target.OS, "TARGETARCH": target.Architecture, "TARGETVARIANT": target.Variant,
		"TARGETSTAGE": stage,
	}
}

func platformName(p ocispec.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// globalScope is what FROM sees: the ARGs before the first one, and the platforms.
func globalScope(d *dockerfile, buildArgs, platform map[string]string) (*scope, error) {
	s := &scope{env: newVars(), args: newVars(), escape: d.escape}
	for _, n := range slices.Sorted(mapKeys(platform)) {
		s.args.set(n, platform[n])
	}
	for i := range d.args {
		c := &d.args[i]
		if err := c.Expand(s.word); err != nil {
			return nil, d.fault(c.Location(), err)
		}
		for _, a := range c.Args {
			if v, ok := buildArgs[a.Key]; ok {
				s.args.set(a.Key, v)
			} else if a.Value != nil {
				s.args.set(a.Key, *a.Value)
			}
		}
	}
	return s, nil
}

// declare makes an ARG of a stage known: the command line's value, else its default, else that of before the first FROM.
func (s *scope) declare(c *instructions.ArgCommand, global *scope, buildArgs map[string]string) {
	for _, a := range c.Args {
		if v, ok := buildArgs[a.Key]; ok {
			s.args.set(a.Key, v)
		} else if a.Value != nil {
			s.args.set(a.Key, *a.Value)
		} else if v, ok := global.args.values[a.Key]; ok {
			s.args.set(a.Key, v)
		}
	}
}

// checkBuildArgs finds a -build-arg that nothing asks for, which is as a rule one that is misspelt.
func checkBuildArgs(d *dockerfile, buildArgs map[string]string) []string {
	known := map[string]bool{"SOURCE_DATE_EPOCH": true}
	for _, n := range proxyArgs {
		known[n] = true
	}
	note := func(c *instructions.ArgCommand) {
		for _, a := range c.Args {
			known[a.Key] = true
		}
	}
	for i := range d.args {
		note(&d.args[i])
	}
	for _, st := range d.stages {
		for _, c := range st.Commands {
			if a, ok := c.(*instructions.ArgCommand); ok {
				note(a)
			}
		}
	}
	var out []string
	for _, n := range slices.Sorted(mapKeys(buildArgs)) {
		if !known[n] {
			out = append(out, fmt.Sprintf("no ARG asks for the -build-arg %s", n))
		}
	}
	return out
}

func mapKeys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
