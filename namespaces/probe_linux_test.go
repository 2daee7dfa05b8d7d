package namespaces

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	before := map[Kind]string{}
	for _, k := range All() {
		before[k], _ = os.Readlink("/proc/self/ns/" + k.ProcName())
	}
	r := Probe(t.Context())
	if len(r) != 8 {
		t.Fatalf("%d lines", len(r))
	}
	for _, p := range r {
		t.Logf("%v: direct %v (%v), in user %v (%v)", p.Kind, p.Direct.Answer, p.Direct.Err, p.InUser.Answer, p.InUser.Err)
		if now, _ := os.Readlink("/proc/self/ns/" + p.Kind.ProcName()); now != before[p.Kind] {
			t.Errorf("the program is in another %v namespace", p.Kind)
		}
		if (p.Direct.Answer == Yes) != (p.Direct.Err == nil) {
			t.Errorf("%v: %+v", p.Kind, p.Direct)
		}
		if os.Geteuid() != 0 && p.Kind != User && (p.Direct.Answer != No || !errors.Is(p.Direct.Err, unix.EPERM) || p.Direct.Remedy == "") {
			t.Errorf("%v as a user: %+v", p.Kind, p.Direct)
		}
	}
	// The lab's machines allow all of it.
	if got := r.Available(); got != AllKinds {
		t.Errorf("available: %v", got)
	}
	noForeignThreads(t)
}

func TestProbeCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, p := range Probe(ctx) {
		if p.Direct.Answer != Unknown || !errors.Is(p.Direct.Err, context.Canceled) || p.Available() {
			t.Errorf("%+v", p)
		}
	}
}

func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		inUser bool
		want   Answer
		remedy string
	}{
		"limit":  {unix.ENOSPC, true, No, "max_net_namespaces"},
		"right":  {unix.EPERM, false, No, "CAP_SYS_ADMIN"},
		"policy": {unix.EPERM, true, No, "may forbid it"},
		"filter": {unix.ENOSYS, false, No, "seccomp"},
		"memory": {unix.ENOMEM, false, Unknown, ""},
	} {
		if v := verdict(Net, c.err, c.inUser); v.Answer != c.want || !strings.Contains(v.Remedy, c.remedy) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
