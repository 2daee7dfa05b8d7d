package main

import (
	"strings"
	"testing"
)

func TestParseFacts(t *testing.T) {
	f := parseFacts("pid: 1\nfd: 0\nfd: 1\ncgroup: 8:pids:/caisson-12-3\nnonsense\n")
	if f["pid"] != "1" || f["fd"] != "0; 1" || f["cgroup"] != "8:pids:/GROUP" || len(f) != 3 {
		t.Errorf("parseFacts = %v", f)
	}
}

func TestWriteDifferences(t *testing.T) {
	facts := map[string]map[string]string{
		"caisson": {"pid": "1", "caps": "0"}, "floor A": {"pid": "1", "caps": "1"}, "runc": {"pid": "2", "caps": "0"}}
	var b strings.Builder
	if n := writeDifferences(&b, []string{"caisson", "floor A", "runc"}, facts); n != 1 {
		t.Errorf("%d faults, want 1 (caps in floor A)\n%s", n, b.String())
	}
	if !strings.Contains(b.String(), "| pid | 1 | same | 2 |") {
		t.Errorf("pid is missing:\n%s", b.String())
	}
}
