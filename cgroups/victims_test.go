package cgroups

import (
	"errors"
	"testing"
	"time"
)

func TestParseVictim(t *testing.T) {
	const head = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
	v, ok := parseVictim(head + "oom_memcg=/a,task_memcg=/a/b,task=hog,pid=12,uid=1000\n")
	if want := (Victim{12, 1000, "hog", "/a/b", "/a"}); !ok || v != want {
		t.Errorf("%+v %v", v, ok)
	}
	// A process may be called anything, also by what looks like fields.
	v, ok = parseVictim(head + "oom_memcg=/a,task_memcg=/a/b,task=,pid=1,uid=0,pid=12,uid=1000")
	if !ok || v.PID != 12 || v.UID != 1000 || v.Command != ",pid=1,uid=0" {
		t.Errorf("%+v %v", v, ok)
	}
	for _, line := range []string{"", "oom-kill:constraint=CONSTRAINT_NONE,task=x,pid=1,uid=0", head, head + "task=x,pid=1,uid=0",
		head + "oom_memcg=/a,task_memcg=/../b,task=hog,pid=12,uid=1", head + "oom_memcg=/a,task_memcg=/a,task=hog,pid=x,uid=1",
		head + "oom_memcg=/a,task_memcg=/a,task=hog,pid=1,uid=99999999999"} {
		if v, ok := parseVictim(line); ok {
			t.Errorf("%q is taken for %+v", line, v)
		}
	}
}

func FuzzVictim(f *testing.F) {
	f.Add("3,1,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/a/b,task=hog,pid=12,uid=1000\n SUBSYSTEM=x")
	f.Fuzz(func(t *testing.T, record string) {
		_, text, ok := parseRecord(record)
		if v, isVictim := parseVictim(text); ok && isVictim && (v.PID <= 0 || !isGroupPath(v.Group) || !isGroupPath(v.Limit)) {
			t.Errorf("%+v", v)
		}
	})
}

func TestTriggerFaults(t *testing.T) {
	good := PressureTrigger{Resource: CPUPressure, Stall: time.Second, Window: 2 * time.Second}
	for name, change := range map[string]func(*PressureTrigger){
		"no resource": func(p *PressureTrigger) { p.Resource = 0 }, "unknown resource": func(p *PressureTrigger) { p.Resource = 4 },
		"no stall": func(p *PressureTrigger) { p.Stall = 0 }, "stall over window": func(p *PressureTrigger) { p.Stall = 3 * time.Second },
		"short window": func(p *PressureTrigger) { p.Window, p.Stall = 499*time.Millisecond, time.Millisecond },
		"long window":  func(p *PressureTrigger) { p.Window = 11 * time.Second },
	} {
		bad := good
		change(&bad)
		var f faults
		f.trigger(bad)
		if !errors.Is(errors.Join(f...), ErrInvalid) {
			t.Errorf("%s is taken", name)
		}
	}
	var f faults
	if f.trigger(good); len(f) > 0 {
		t.Error(f)
	}
}
