package caisson

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestBadAttributes(t *testing.T) {
	for name, opts := range map[string][]Option{
		"WithScheduler":     {WithScheduler(Scheduler{Policy: 9})},
		"niceness":          {WithScheduler(Scheduler{Nice: 20})},
		"no niceness":       {WithScheduler(Scheduler{Policy: SchedIdle, Nice: 1})},
		"0 is not in 1..99": {WithScheduler(Scheduler{Policy: SchedFIFO})},
		"for SCHED_DEAD":    {WithScheduler(Scheduler{Runtime: time.Second})},
		"1024ns":            {WithScheduler(Scheduler{Policy: SchedDeadline, Runtime: time.Second, Deadline: time.Millisecond})},
		"no class":          {WithIOPriority(0, 3)},
		"0..7":              {WithIOPriority(IOBestEffort, 8)},
		"no level":          {WithIOPriority(IOIdle, 1)},
		"WithCPUAffinity":   {WithCPUAffinity("3-1")},
		"such as":           {WithCPUAffinity("")},
		"no mode":           {WithMemoryPolicy(MemoryPolicy{Nodes: "0"})},
		"takes no nodes":    {WithMemoryPolicy(MemoryPolicy{Mode: MemoryLocal, Nodes: "0"})},
		"below 8192":        {WithMemoryPolicy(MemoryPolicy{Mode: MemoryBind})},
		"above 1023":        {WithMemoryPolicy(MemoryPolicy{Mode: MemoryBind, Nodes: "1024"})},
		"exclude":           {WithMemoryPolicy(MemoryPolicy{Mode: MemoryBind, Nodes: "0", StaticNodes: true, RelativeNodes: true})},
		"balanced":          {WithMemoryPolicy(MemoryPolicy{Mode: MemoryPreferred, Nodes: "0", Balancing: true})},
		"unknown":           {WithCapabilitySets(CapabilitySets{Bounding: []string{"CAP_X"}})},
		"not permitted":     {WithCapabilitySets(CapabilitySets{Effective: []string{"chown"}})},
		"not in the bound":  {WithCapabilitySets(CapabilitySets{Permitted: []string{"chown"}})},
		"ambient":           {WithCapabilitySets(CapabilitySets{Ambient: []string{"chown"}})},
		"which set":         {WithCapabilitySets(CapabilitySets{}), WithAddedCapabilities("chown")},
		"no such resource":  {WithNamedRlimit("files", 1, 1)},
		"at most 65536":     {WithGroups(make([]uint32, 65537)...)},
	} {
		_, err := New(append([]Option{WithCommand("true")}, opts...)...)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := New(WithCommand("true"), WithIOPriority(0, 9), WithCPUAffinity("x"), WithScheduler(Scheduler{Nice: 40}))
	for _, all := range []string{"WithIOPriority", "WithCPUAffinity", "WithScheduler", "level 9"} {
		if err == nil || !strings.Contains(err.Error(), all) {
			t.Errorf("%s is not among the faults: %v", all, err)
		}
	}
}

func TestParseList(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "0-3,8": "0-3,8", "8,0-3": "0-3,8", "63,64,65": "63-65", "1, 3": "1,3", "8191": "8191"} {
		if l, err := parseList(in); err != nil || l.String() != want {
			t.Errorf("%q: %v, %v", in, l, err)
		}
	}
	for _, in := range []string{"", ",", "-", "1-", "-1", "3-1", "8192", "0x1", "1-2-3", "+1", "1,,2"} {
		if l, err := parseList(in); err == nil {
			t.Errorf("%q: %v", in, l)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("0-3,8")
	f.Add("5,,")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseList(s)
		if err != nil {
			return
		}
		again, err := parseList(l.String())
		if err != nil || again.String() != l.String() || len(again.without(l)) != 0 || len(l) > maxListed/64 {
			t.Errorf("%q: %v, again %v, %v", s, l, again, err)
		}
	})
}
