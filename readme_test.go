package caisson_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The program in README.md is the body of Example, which is compiled and run.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []struct{ name, text, begin, end string }{
		{"README.md", string(readme), "func main() {\n", "}\n"},
	} {
		want := between(string(example), "func Example() {\n", "\n}\n")
		want = regexp.MustCompile(`\t// Output:.*\n?`).ReplaceAllString(want+"\n", "")
		if got := between(src.text, src.begin, "\n"+src.end); strings.TrimSpace(got) != strings.TrimSpace(want) || want == "" {
			t.Errorf("%s shows\n%s\nExample is\n%s", src.name, got, want)
		}
	}
}

// The links of the documents lead to files that exist.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	files := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
	for _, dir := range []string{"docs/", "docs/concepts/"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".md") {
				files = append(files, dir+e.Name())
			}
		}
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
		}
		dir := f[:strings.LastIndex(f, "/")+1]
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(dir + m[1]); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
}

func between(s, begin, end string) string {
	_, s, _ = strings.Cut(s, begin)
	s, _, _ = strings.Cut(s, end)
	return s
}
