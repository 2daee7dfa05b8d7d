//go:build linux

package examples_test

import "testing"

// TestCgroups runs each lesson; who may not have a group is told so.
func TestCgroups(t *testing.T) {
	for lesson, want := range map[string][]string{
		"memory":   {`^memory +a process .* ended: signal: killed$`, `^memory +the group counts [1-9]\d* OOM kill`},
		"cpu":      {`^cpu +on one CPU, weight 100 got .* times as much$`},
		"freeze":   {`^freeze +running used CPU time: true$`, `^freeze +frozen +used CPU time: false$`, `^freeze +thawed +used CPU time: true$`},
		"pressure": {`^pressure +(told of: cpu some 500ms in 2s|not here: .*)$`},
		"devices": {`^devices +now: allow c 1:5 rwm\ndevices +/dev/zero opened with <\ndevices +/dev/zero opened with >$`,
			`^devices +/dev/zero opened with <\ndevices +/dev/zero refused with >\ndevices +/dev/zero refused with <>$`},
	} {
		t.Run(lesson, func(t *testing.T) {
			asEach(t, func(t *testing.T, c caller) {
				if !c.root() {
					c.run(t, "cgroups", lesson).want(t, 0)
					return
				}
				c.run(t, "cgroups", lesson).want(t, 0, want...)
			})
		})
	}
}
