// Command testlog reads what "go test -json" writes and prints what a person wants to see of it: the closing line of
// each package, and everything about tests that failed. It judges skips: a test that was skipped for a reason which
// the list of allowed skips does not hold is a fault, since a test that never runs finds nothing.
//
//	go test -json ./... | testlog -skips .ci/skips -facts root,hybrid
//
// The list has one rule a line: facts that must all hold, or not hold after "!", white space, and a regular expression that
// the reason must match as a whole. Fact "any" always holds. Empty lines and lines that begin with # mean nothing.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	skips := flag.String("skips", "", "file with the list of allowed skips; without it every skip is allowed")
	facts := flag.String("facts", "", "facts that hold, separated by commas")
	slow := flag.Int("slow", 0, "how many of the slowest tests to list")
	flag.Parse()
	var rules []rule
	if *skips != "" {
		f, err := os.Open(*skips)
		if err == nil {
			rules, err = parseRules(f)
			f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "testlog:", err)
			os.Exit(2)
		}
	}
	s := &summary{out: os.Stdout, rules: rules, all: *skips == "", facts: strings.Split(*facts, ","), slow: *slow}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	for in.Scan() {
		s.line(in.Bytes())
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(2)
	}
	if !s.end() {
		os.Exit(1)
	}
}
