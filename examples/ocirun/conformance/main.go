// Command conformance judges OCI runtimes by the runtime specification 1.3: it has a named check for each requirement
// that concerns a runtime on Linux, and prints which runtime meets which.
//
//	conformance ocirun=/usr/local/bin/ocirun runc crun      # a line for each check
//	conformance -markdown ocirun runc crun                  # a page
//	conformance -only 'hooks' -v ocirun                     # some of them, with what was seen
//
// A runtime is driven by the commands that engines use (create, start, run, kill, delete, state) and needs to be nothing
// else. Inside of containers this program is its own probe. It needs root, a static build of itself (CGO_ENABLED=0) and
// Linux 5.14; cgroups it makes are named caisson-conformance-PID.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

func main() {
	if filepath.Base(os.Args[0]) == "probe" {
		probe(os.Args[1:])
		return
	}
	if err := judge(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func judge() error {
	one := flag.Bool("one", false, "internal: judge one runtime in this process and print JSON")
	list := flag.Bool("list", false, "list the checks")
	markdown := flag.Bool("markdown", false, "print a page in Markdown")
	asJSON := flag.Bool("json", false, "print JSON")
	verbose := flag.Bool("v", false, "say what was seen where a check is not met")
	only := flag.String("only", "", "only checks whose section and name match this `pattern`")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	checks := selected(pattern)
	if *list {
		for _, c := range checks {
			fmt.Printf("%s | %s | %s\n", c.section, c.level, c.name)
		}
		return nil
	}
	if flag.NArg() == 0 {
		return fmt.Errorf("name the runtimes to judge, each as PATH or NAME=PATH")
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("needs root")
	}
	if *one {
		return judgeHere(flag.Arg(0), checks)
	}
	var all []*judged
	for _, arg := range flag.Args() {
		j, err := judgeApart(arg, *only)
		if err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
		all = append(all, j)
	}
	switch {
	case *asJSON:
		return json.NewEncoder(os.Stdout).Encode(all)
	case *markdown:
		printPage(os.Stdout, checks, all)
	default:
		printLines(os.Stdout, checks, all, *verbose)
	}
	return nil
}

// judged are the results for one runtime, in the order of the checks.
type judged struct {
	Name    string
	Version string
	Results []result
}

// result is what came of one check.
type result struct {
	Section, Level, Check string
	Outcome               outcome
	Seen                  string `json:",omitempty"` // why it failed, or was not possible here
	Reason                string `json:",omitempty"` // why ocirun differs, where it does on purpose
}

type outcome string

const (
	pass    outcome = "pass"
	fail    outcome = "FAIL"
	skipped outcome = "n/a"
)

// judgeApart judges a runtime in a mount namespace of its own, so that no mount of a check is one of the machine's.
func judgeApart(runtime, only string) (*judged, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-one", "-only", only, runtime)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	j := &judged{}
	return j, json.Unmarshal(out, j)
}

func judgeHere(arg string, checks []check) error {
	name, path, ok := strings.Cut(arg, "=")
	if !ok {
		name, path = filepath.Base(arg), arg
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return err
	}
	r, err := newRuntime(name, path)
	if err != nil {
		return err
	}
	defer r.close()
	j := judged{Name: name, Version: r.version()}
	for _, c := range checks {
		j.Results = append(j.Results, r.judge(c))
	}
	return json.NewEncoder(os.Stdout).Encode(j)
}
