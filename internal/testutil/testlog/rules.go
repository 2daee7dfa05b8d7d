package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// rule allows skips.
type rule struct {
	facts  []string // all must hold, and those that begin with ! must not
	reason *regexp.Regexp
}

func parseRules(r io.Reader) ([]rule, error) {
	var out []rule
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		text := strings.TrimSpace(in.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		i := strings.IndexAny(text, " \t")
		if i < 0 {
			return nil, fmt.Errorf("line %d: no reason after %q", n, text)
		}
		re, err := regexp.Compile(`^(?:` + strings.TrimSpace(text[i:]) + `)$`)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, rule{strings.Split(text[:i], ","), re})
	}
	return out, in.Err()
}

// allowed reports whether a rule allows a skip.
func allowed(rules []rule, facts []string, reason string) bool {
	return slices.ContainsFunc(rules, func(r rule) bool {
		for _, f := range r.facts {
			name, not := strings.CutPrefix(f, "!")
			if f != "any" && slices.Contains(facts, name) == not {
				return false
			}
		}
		return r.reason.MatchString(reason)
	})
}
