package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/caisson-go/caisson/image"
)

// expandAll does the ARG, ENV and LABEL instructions of the last stage, and returns the labels.
func expandAll(t *testing.T, text string, buildArgs map[string]string) (string, map[string]string) {
	t.Helper()
	d, err := parseDockerfile("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	global, err := globalScope(d, buildArgs, platformArgs(image.LocalPlatform(), image.LocalPlatform(), ""))
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{b: &builder{file: d, global: global, opts: &options{buildArgs: buildArgs}}, scope: &scope{env: newVars(), args: newVars(), escape: d.escape}}
	last := d.stages[len(d.stages)-1]
	for _, c := range last.Commands {
		if err := s.scope.expand(c); err != nil {
			t.Fatal(err)
		}
		if err := s.set(c); err != nil {
			t.Fatal(err)
		}
	}
	from, err := global.word(last.BaseName)
	if err != nil {
		t.Fatal(err)
	}
	return from, s.state.settings.Labels
}

func TestScopes(t *testing.T) {
	for _, tt := range []struct {
		text string
		args map[string]string
		from string
		want string // of the label x
	}{
		{text: "ARG V=1\nFROM b:$V\nLABEL x=$V", from: "b:1", want: ""},
		{text: "ARG V=1\nFROM b:$V\nARG V\nLABEL x=$V", from: "b:1", want: "1"},
		{text: "ARG V=1\nFROM b\nARG V=2\nLABEL x=$V", from: "b", want: "2"},
		{text: "ARG V=1\nFROM b:$V\nARG V=2\nLABEL x=$V", args: map[string]string{"V": "3"}, from: "b:3", want: "3"},
		{text: "FROM b\nLABEL x=$V", args: map[string]string{"V": "3"}, from: "b", want: ""},
		{text: "FROM b\nENV V=env\nARG V=arg\nLABEL x=$V", args: map[string]string{"V": "3"}, from: "b", want: "env"},
		{text: "FROM b\nARG A=a\nARG B=${A}b\nENV C=$B$A\nLABEL x=${C}", from: "b", want: "aba"},
		{text: "FROM b\nENV A=1 B=$A\nLABEL x=[$B]", from: "b", want: "[]"},
		{text: "FROM b\nLABEL x=${V:-def}${W:+alt}", from: "b", want: "def"},
		{text: "FROM b\nENV V=foo.tar.gz\nLABEL x=${V%.*}-${V%%.*}-${V#*.}-${V/tar/zip}", from: "b", want: "foo.tar-foo-tar.gz-foo.zip.gz"},
		{text: "FROM b\nENV V=1\nLABEL x='$V'\\$V\"$V\"", from: "b", want: "$V$V1"},
		{text: "FROM b\nARG TARGETOS\nLABEL x=$TARGETOS", from: "b", want: "linux"},
		{text: "# escape=`\nFROM b\nENV V=1\nLABEL x=`$V", from: "b", want: "$V"},
	} {
		from, labels := expandAll(t, tt.text, tt.args)
		if from != tt.from || labels["x"] != tt.want {
			t.Errorf("%q: FROM %q, x=%q; want %q and %q", tt.text, from, labels["x"], tt.from, tt.want)
		}
	}
}

func TestFaults(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "Dockerfile: ",
		"RUN x":                   "Dockerfile:1: ",
		"FROM a\nFOO b":           "Dockerfile:2: ",
		"FROM a\n\nCOPY x":        "Dockerfile:3: ",
		"FROM a\nRUN <<E\nx":      "Dockerfile",
		"FROM a\nEXPOSE":          "Dockerfile:2: ",
		"FROM a\nENV x":           "Dockerfile:2: ",
		"FROM a\nHEALTHCHECK x y": "Dockerfile:2: ",
		"FROM a\nONBUILD FROM x":  "Dockerfile:2: ",
	} {
		_, err := parseDockerfile("Dockerfile", []byte(text))
		var f *fault
		if !errors.As(err, &f) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := parseDockerfile("D", []byte("FROM a\nFOO b")); err == nil || !strings.Contains(err.Error(), ">    2 | FOO b") {
		t.Errorf("no excerpt: %v", err)
	}
}

func TestStageNumber(t *testing.T) {
	d := &dockerfile{stages: []instructions.Stage{{Name: "one"}, {}, {Name: "Three"}}}
	for _, tt := range []struct {
		name string
		n    int
		want int
		ok   bool
	}{{"one", 3, 0, true}, {"ONE", 3, 0, true}, {"three", 3, 2, true}, {"three", 2, 0, false}, {"1", 3, 1, true}, {"3", 3, 0, false}, {"", 3, 0, false}, {"99999999999999999999", 3, 0, false}} {
		if i, ok := d.stageNumber(tt.name, tt.n); ok != tt.ok || ok && i != tt.want {
			t.Errorf("%+v: %d, %t", tt, i, ok)
		}
	}
}
