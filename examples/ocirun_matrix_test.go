//go:build linux

package examples_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// engines are the columns of the matrix in docs/conformance.md: the tests that drive an engine, and the program that tells its version.
var engines = []struct{ test, name, program string }{
	{"TestOcirunPodman", "podman", "podman"}, {"TestOcirunPodmanNetwork", "podman", "podman"}, {"TestOcirunPodmanRootless", "podman, ordinary user", "podman"},
	{"TestOcirunBuildah", "buildah", "buildah"}, {"TestOcirunContainerd", "containerd, ctr", "containerd"},
	{"TestOcirunCRI", "containerd, CRI", "containerd"}, {"TestOcirunDocker", "Docker", "dockerd"},
}

// matrix collects what came of each feature of each engine.
var matrix = struct {
	sync.Mutex
	rows  []string
	cells map[[2]string]string // by feature and engine
}{cells: map[[2]string]string{}}

// engineFeature runs one test of an engine's feature, and notes what came of it.
func engineFeature(t *testing.T, name string, f func(t *testing.T)) bool {
	t.Helper()
	return t.Run(name, func(t *testing.T) {
		t.Cleanup(func() { note(t, name) })
		f(t)
	})
}

func note(t *testing.T, feature string) {
	test, _, _ := strings.Cut(t.Name(), "/")
	i := slices.IndexFunc(engines, func(e struct{ test, name, program string }) bool { return e.test == test })
	if i < 0 {
		t.Errorf("%s is not in the list of engines", test)
		return
	}
	outcome := "pass"
	switch {
	case t.Failed():
		outcome = "FAIL"
	case t.Skipped():
		outcome = "n/a"
	}
	matrix.Lock()
	defer matrix.Unlock()
	if !slices.Contains(matrix.rows, feature) {
		matrix.rows = append(matrix.rows, feature)
	}
	key := [2]string{feature, engines[i].name}
	if matrix.cells[key] != "FAIL" { // of two tests the worse counts
		matrix.cells[key] = outcome
	}
}

const (
	matrixBegin = "<!-- made by make test-engines -->\n"
	matrixEnd   = "<!-- until here -->\n"
)

// writeMatrix replaces the matrix on a page, if this run was asked for one.
func writeMatrix() error {
	page := os.Getenv("CAISSON_ENGINES_PAGE")
	if page == "" {
		return nil
	}
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(b), matrixBegin)
	_, tail, ok2 := strings.Cut(rest, matrixEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the matrix", page)
	}
	return os.WriteFile(page, []byte(head+matrixBegin+matrixText(engineVersion)+matrixEnd+tail), 0o644)
}

// matrixText is the matrix in Markdown.
func matrixText(version func(program string) string) string {
	matrix.Lock()
	defer matrix.Unlock()
	var names, heads []string
	for _, e := range engines {
		if !slices.Contains(names, e.name) {
			names = append(names, e.name)
			heads = append(heads, strings.TrimSpace(e.name+" "+version(e.program)))
		}
	}
	text := fmt.Sprintf("| | %s |\n|---|%s\n", strings.Join(heads, " | "), strings.Repeat("---|", len(heads)))
	for _, feature := range matrix.rows {
		text += "| " + feature + " |"
		for _, name := range names {
			text += strings.TrimRight(" "+matrix.cells[[2]string{feature, name}], " ") + " |"
		}
		text += "\n"
	}
	return text
}

var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

func engineVersion(program string) string {
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return ""
	}
	return versionNumber.FindString(string(out))
}

// docs/conformance.md has a matrix in which nothing fails.
func TestEnginesPage(t *testing.T) {
	b, err := os.ReadFile("../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), matrixBegin)
	text, _, _ := strings.Cut(rest, matrixEnd)
	rows := strings.Count(text, "\n| ")
	if rows < 40 || strings.Contains(text, "FAIL") {
		t.Errorf("%d rows, run make test-engines: %s", rows, text)
	}
	for _, e := range engines {
		if !strings.Contains(text, "| "+e.name+" ") {
			t.Errorf("no column for %s", e.name)
		}
	}
}
