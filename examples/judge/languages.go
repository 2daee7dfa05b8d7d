package main

import (
	"maps"
	"os"
	"path"
	"slices"
)

// work is the working directory of programs, and the only one besides /tmp in which they can write.
const work = "/w"

// language says how a source is run.
type language struct {
	Name string `json:"name"`
	// File is the source's name in the working directory.
	File string `json:"file"`
	// Run is the command; Compile, if there is one, a command that writes the program to its standard output.
	Run     []string `json:"run"`
	Compile []string `json:"compile,omitempty"`
	tool    string
}

const compiled = work + "/program"

func compiler(tool, file string) []string {
	return []string{"sh", "-c", tool + ` -O2 -o /tmp/program "$1" -lm && cat /tmp/program`, "sh", file}
}

var allLanguages = []*language{
	{Name: "sh", File: "main.sh", Run: []string{"sh", "main.sh"}, tool: "sh"},
	{Name: "bash", File: "main.bash", Run: []string{"bash", "main.bash"}, tool: "bash"},
	{Name: "python3", File: "main.py", Run: []string{"python3", "main.py"}, tool: "python3"},
	{Name: "perl", File: "main.pl", Run: []string{"perl", "main.pl"}, tool: "perl"},
	{Name: "node", File: "main.js", Run: []string{"node", "main.js"}, tool: "node"},
	{Name: "ruby", File: "main.rb", Run: []string{"ruby", "main.rb"}, tool: "ruby"},
	{Name: "lua", File: "main.lua", Run: []string{"lua", "main.lua"}, tool: "lua"},
	{Name: "awk", File: "main.awk", Run: []string{"awk", "-f", "main.awk"}, tool: "awk"},
	{Name: "c", File: "main.c", Run: []string{compiled}, Compile: compiler("cc", "main.c"), tool: "cc"},
	{Name: "c++", File: "main.cc", Run: []string{compiled}, Compile: compiler("c++", "main.cc"), tool: "c++"},
}

// findLanguages returns those whose tools are below root, where programs look for them.
func findLanguages(root string) map[string]*language {
	found := map[string]*language{}
	for _, l := range allLanguages {
		for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin"} {
			if st, err := os.Stat(path.Join(root, dir, l.tool)); err == nil && st.Mode()&0o111 != 0 {
				found[l.Name] = l
				break
			}
		}
	}
	return found
}

// names in the order of allLanguages.
func names(found map[string]*language) []string {
	out := slices.Collect(maps.Keys(found))
	slices.SortFunc(out, func(a, b string) int {
		return slices.Index(allLanguages, found[a]) - slices.Index(allLanguages, found[b])
	})
	return out
}
