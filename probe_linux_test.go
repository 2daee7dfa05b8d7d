package caisson

import (
	"os"
	"testing"
)

// What Probe says agrees with what a start meets.
func TestProbeAgreesWithAStart(t *testing.T) {
	noLeaks(t)
	all := map[string]Ability{}
	for _, a := range Probe(testContext(t)) {
		if _, twice := all[a.Area+"/"+a.Name]; twice {
			t.Errorf("%s is listed twice", a)
		}
		all[a.Area+"/"+a.Name] = a
		if a.Answer == No && a.Reason == "" {
			t.Errorf("no reason: %s", a)
		}
	}
	c := newContainer(t, WithCommand("/bin/true"))
	err := c.Run(testContext(t))
	if ns := all["namespaces/mount"].Answer; (ns == Yes) != (err == nil) {
		t.Errorf("mount namespace %v, start %v", ns, err)
	}
	_, limited := c.Isolation().Get("process limit")
	if pids := all["cgroups/pids controller"].Answer; (pids == Yes) != limited {
		t.Errorf("pids controller %v, process limit applied %v", pids, limited)
	}
	if priv := all["system/privileged"].Answer; (priv == Yes) != (os.Geteuid() == 0) {
		t.Errorf("privileged %v as uid %d", priv, os.Geteuid())
	}
}
