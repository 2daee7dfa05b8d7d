//go:build linux

package examples_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// conformed is a runtime with the results of the checks, as program conformance prints them.
type conformed struct {
	Name    string
	Results []struct{ Section, Check, Outcome, Seen, Reason string }
}

// conform runs the checks for these runtimes. CAISSON_CONFORMANCE=crun,runc adds others, to whom ocirun is compared.
func conform(t *testing.T) []conformed {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: the checks make mounts and cgroups of the machine's")
	}
	args := []string{"-json", filepath.Join(bin, "ocirun")}
	if more := os.Getenv("CAISSON_CONFORMANCE"); more != "" {
		args = append(args, strings.Split(more, ",")...)
	}
	c := caller{0, ownDir(t, 0)}
	out := c.run(t, "conformance", args...)
	out.want(t, 0)
	var all []conformed
	if err := json.Unmarshal([]byte(out.stdout), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// ocirun does what the specification demands, but for what has a reason; and all that others do.
func TestConformance(t *testing.T) {
	all := conform(t)
	for i, r := range all[0].Results {
		name := r.Section + " | " + r.Check
		switch {
		case r.Outcome == "FAIL" && r.Reason == "":
			t.Errorf("%s: %s", name, r.Seen)
		case r.Outcome == "pass" && r.Reason != "":
			t.Errorf("%s passes, and there is a reason why it does not: %s", name, r.Reason)
		}
		for _, other := range all[1:] {
			if other.Results[i].Outcome == "pass" && r.Outcome == "FAIL" && r.Reason == "" {
				t.Errorf("%s: %s does it", name, other.Name)
			}
		}
	}
}

// docs/conformance.md, which make conformance writes, has the checks that there are.
func TestConformancePage(t *testing.T) {
	page, err := os.ReadFile("../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	c := caller{os.Getuid(), ownDir(t, os.Getuid())}
	list := c.run(t, "conformance", "-list")
	list.want(t, 0)
	section, rows, listed := "", map[string]bool{}, 0
	for line := range strings.Lines(string(page)) {
		if head, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(head)
		}
		if f := strings.Split(line, " | "); len(f) > 3 {
			rows[section+" | "+strings.TrimSpace(f[1])+" | "+strings.TrimPrefix(f[0], "| ")] = true
		}
	}
	for line := range strings.Lines(list.stdout) {
		listed++
		if !rows[strings.TrimSpace(line)] {
			t.Errorf("not on the page, run make conformance: %s", line)
		}
	}
	if listed < 300 {
		t.Errorf("only %d checks", listed)
	}
}
