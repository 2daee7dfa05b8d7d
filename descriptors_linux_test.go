package caisson

import (
	"bytes"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/namespaces"
)

// A command gets its streams and extra files, and no other descriptor, however it is started and whenever its filter is put on.
func TestOnlyItsDescriptors(t *testing.T) {
	const script = "for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done; true"
	for name, opts := range map[string][]Option{
		"default":        nil,
		"new privileges": {WithNoNewPrivileges(false)},
		"no namespaces":  {WithNoNewPrivileges(false), WithNamespace(namespaces.PID, namespaces.Host()), WithNamespace(namespaces.Net, namespaces.Host())},
		"user namespace": {WithNoNewPrivileges(false), WithNamespace(namespaces.User, namespaces.New())},
	} {
		t.Run(name, func(t *testing.T) {
			for stream, streams := range map[string]func() []ProcessOption{
				"pipe":     func() []ProcessOption { return []ProcessOption{WithStdin(strings.NewReader("x"))} },
				"null":     func() []ProcessOption { return nil },
				"terminal": func() []ProcessOption { return []ProcessOption{WithTerminal(24, 80), WithStderr(nil)} },
			} {
				t.Run(stream, func(t *testing.T) {
					var out bytes.Buffer
					first := append([]Option{}, opts...)
					for _, o := range append([]ProcessOption{WithCommand("/bin/sh", "-c", script), WithStdout(&out)}, streams()...) {
						first = append(first, o)
					}
					if err := newContainer(t, first...).Run(testContext(t)); err != nil {
						t.Fatal(err)
					}
					onlyStreams(t, "the first process", out.String())
					c := runs(t, opts...)
					got, _ := execs(t, c, script, streams()...) // a reader of its own: one may be read after the end of its process
					onlyStreams(t, "another process", got)
				})
			}
			p := newPool(t, 1, opts...)
			var out bytes.Buffer
			if _, err := p.Run(testContext(t), sh(script), WithStdout(&out)); err != nil {
				t.Fatal(err)
			}
			onlyStreams(t, "a process of a pool", out.String())
		})
	}
}

func onlyStreams(t *testing.T, who, got string) {
	t.Helper()
	if f := strings.Join(strings.Fields(got), " "); f != "0 1 2" {
		t.Errorf("%s has the descriptors %s", who, f)
	}
}
