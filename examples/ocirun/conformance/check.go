package main

import (
	"fmt"
	"regexp"
	"slices"
)

// check is one requirement of the specification.
type check struct {
	section string // file and heading
	level   string // MUST, SHOULD, or field: what a field means, where the text says no more than that
	name    string
	run     func(t *trial)
}

// checks are all of them, in the order of the specification.
func checks() []check {
	return slices.Concat(bundleChecks(), stateChecks(), lifecycleChecks(), operationChecks(), linuxRuntimeChecks(), configChecks(),
		mountChecks(), mountOptionChecks(), processChecks(), attributeChecks(), userChecks(), hookChecks(), filesystemChecks(), namespaceChecks(),
		deviceChecks(), netDeviceChecks(), cgroupChecks(), seccompChecks(), linuxFieldChecks(), invalidChecks(), featureChecks())
}

func selected(only *regexp.Regexp) (list []check) {
	for _, c := range checks() {
		if only.MatchString(c.section + " | " + c.name) {
			list = append(list, c)
		}
	}
	return list
}

// reason says why ocirun does not meet it.
func (c *check) reason() string {
	key := c.section + " | " + c.name
	if r := differs[key]; r != "" {
		return "on purpose: " + r
	}
	if r := lacks[key]; r != "" {
		return "not done: " + r
	}
	return ""
}

// verdict is what a check ends with unless all is well: trial.failf and trial.skipf panic with it.
type verdict struct {
	outcome outcome
	seen    string
}

func (t *trial) failf(format string, args ...any) { panic(verdict{fail, fmt.Sprintf(format, args...)}) }
func (t *trial) skipf(format string, args ...any) {
	panic(verdict{skipped, fmt.Sprintf(format, args...)})
}

// want fails the check unless a value is as it should be.
func want[T comparable](t *trial, what string, got, wanted T) {
	if got != wanted {
		t.failf("%s is %v, not %v", what, got, wanted)
	}
}

func (t *trial) must(err error) {
	if err != nil {
		t.failf("%v", err)
	}
}
